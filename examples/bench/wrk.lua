-- wrk -s wrk.lua URL -- TOKENS FIRST HEADERS: each request carries the next token of the file TOKENS, one a line, from
-- number FIRST (0: the first) on and round again, and HEADERS further headers. Prints one line of JSON.

local requests, at = {}, 0

function init(args)
  local headers = {}
  for number = 1, tonumber(args[3]) do
    headers["x-header-" .. number] = "a value of usual length"
  end
  for token in io.lines(args[1]) do
    headers["authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format("GET", nil, headers)
  end
  at = tonumber(args[2]) % #requests
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
