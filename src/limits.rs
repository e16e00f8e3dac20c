//! Every bound the gate keeps, with its unit and its source.

use std::time::Duration;

/// Longest token looked at, in bytes, unless a provider's `max_token_bytes` says otherwise.
pub const TOKEN_BYTES: usize = 8 * 1024;

/// Largest value `max_token_bytes` may have, in bytes. Envoy's own default for all headers together is 60 KiB.
pub const TOKEN_BYTES_CEILING: usize = 64 * 1024;

/// Deepest nesting of arrays and objects inside the outermost one of a token, a key or a configuration.
pub const JSON_DEPTH: usize = 32;

/// Largest plugin configuration read, in bytes.
pub const CONFIG_BYTES: usize = 1024 * 1024;

/// Largest JWK Set document read, in bytes, unless `remote_jwks.max_bytes` says otherwise.
pub const JWKS_BYTES: usize = 256 * 1024;

/// Largest value `remote_jwks.max_bytes` may have, in bytes. Envoy buffers at most 32 MiB of a callout's answer.
pub const JWKS_BYTES_CEILING: usize = 4 * 1024 * 1024;

/// Most keys read from one JWK Set, unless `remote_jwks.max_keys` says otherwise.
pub const JWKS_KEYS: usize = 64;

/// Largest value `remote_jwks.max_keys` may have.
pub const JWKS_KEYS_CEILING: usize = 4096;

/// Most signatures checked for one request: a token without a `kid` is tried with every key that fits it.
pub const VERIFICATIONS_PER_REQUEST: usize = 8;

/// Verified tokens kept by one worker for the providers without a `jwt_cache_config`, all together.
pub const TOKEN_CACHE_TOKENS: usize = 1024;

/// Verified tokens kept by one worker for a provider whose `jwt_cache_config` has no `jwt_cache_size` (as in
/// `jwt_authn`).
pub const NATIVE_TOKEN_CACHE_TOKENS: usize = 100;

/// Most verified tokens that one worker may be configured to keep.
pub const TOKEN_CACHE_TOKENS_CEILING: usize = 65_536;

/// Most room that one worker's verified tokens take, in bytes as reckoned when they enter.
pub const TOKEN_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Longest token kept when `jwt_cache_config.jwt_max_token_size` is absent, in bytes (as in `jwt_authn`).
pub const TOKEN_CACHE_TOKEN_BYTES: usize = 4096;

/// Providers whose verification of one token is remembered with it.
pub const TOKEN_CACHE_PROOFS: usize = 8;

/// Tokens remembered, by their hash alone, that a full cache has turned away.
pub const TOKEN_CACHE_SEEN: usize = 4096;

/// Cheap verifications of our own per second and worker when `verifications_per_second.light` is absent: as with the
/// other classes, about half a worker's time goes into them.
pub const LIGHT_VERIFICATIONS: u32 = 4000;

/// Verifications of middling cost per second and worker when `verifications_per_second.medium` is absent.
pub const MEDIUM_VERIFICATIONS: u32 = 1000;

/// Expensive verifications per second and worker when `verifications_per_second.heavy` is absent.
pub const HEAVY_VERIFICATIONS: u32 = 60;

/// Smallest RSA modulus that verifies, in bits (RFC 7518 §3.3 and §3.5).
pub const RSA_MODULUS_BITS_MIN: usize = 2048;

/// Largest RSA modulus that verifies, in bits: one verification costs 16 times that of 2048 bits.
pub const RSA_MODULUS_BITS_MAX: usize = 8192;

/// Longest RSA exponent, in bytes. Nearly all are 65537; each bit costs a product.
pub const RSA_EXPONENT_BYTES: usize = 8;

/// Clock skew allowed when `clock_skew_seconds` is absent (as in `jwt_authn`).
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Largest `clock_skew_seconds`: beyond a day it would be a change of policy, not of clocks.
pub const CLOCK_SKEW_CEILING: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a fetched key set is fresh when `cache_duration` is absent (as in `jwt_authn`).
pub const CACHE_DURATION: Duration = Duration::from_secs(600);

/// How long an expired key set goes on serving while refreshes fail, when `stale_for` is absent.
pub const STALE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest duration a configuration may name: ten years.
pub const DURATION_CEILING: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// How long a fetch may take when `http_uri.timeout` is absent.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after its own timeout a fetch without an answer counts as failed: the host's answer normally comes first.
pub const FETCH_GRACE: Duration = Duration::from_secs(1);

/// Pause after a first failed fetch; its upper bound doubles with each further failure.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to fetch, unless the issuer asks for more.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Longest pause that an issuer may ask for with `Retry-After`.
pub const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Shortest time for which a key set is fresh, whatever its answer says, unless `cache_duration` is shorter.
pub const FRESH_MIN: Duration = Duration::from_secs(60);

/// Longest time for which a key set is fresh, whatever its answer says.
pub const FRESH_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Least time between two fetches for unknown `kid`s when `min_refetch_interval` is absent.
pub const REFETCH_INTERVAL: Duration = Duration::from_secs(30);

/// Fetches for unknown `kid`s that may follow each other at once.
pub const REFETCH_BURST: u32 = 2;

/// Least time between two fetches because a signature does not verify.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(300);

/// Unknown `kid`s remembered, and asked for at once, per issuer.
pub const UNKNOWN_KIDS: usize = 256;

/// How long a `kid` stays unknown.
pub const UNKNOWN_KID_FOR: Duration = Duration::from_secs(60);

/// Longest `kid` that is asked for, in bytes.
pub const UNKNOWN_KID_BYTES: usize = 256;

/// Most requests that wait for keys at once, per worker.
pub const PARKED_REQUESTS: usize = 256;

/// Longest time a request waits for keys.
pub const PARKED_FOR: Duration = Duration::from_secs(2);

/// Longest header value made from a claim, in bytes.
pub const CLAIM_HEADER_BYTES: usize = 8 * 1024;

/// Most providers and most rules in one configuration.
pub const CONFIG_ENTRIES: usize = 4096;

/// Longest piece of a token (a `kid`, an issuer) that a log line repeats, in characters.
pub const LOGGED_CHARS: usize = 256;

/// Most items of a list (`kid`s, audiences) that a log line repeats.
pub const LOGGED_ITEMS: usize = 16;

/// Rejections of one reason that are logged in a burst, per worker.
pub const LOG_BURST: u32 = 20;

/// One further log line per reason is allowed after this long.
pub const LOG_INTERVAL: Duration = Duration::from_millis(500);

/// Largest regular expression, in bytes of its compiled form.
pub const REGEX_BYTES: usize = 256 * 1024;

/// Longest regular expression, list of values or name in a claim rule, in entries.
pub const CLAIM_RULE_VALUES: usize = 1024;

/// Decisions whose counters are not named anew each time, per worker.
pub const COUNTED_DECISIONS: usize = 64;

/// Names of keys that metrics show, per worker.
pub const METRIC_KIDS: usize = 64;

/// Longest value of a metric's label, in characters.
pub const METRIC_LABEL_CHARS: usize = 64;
