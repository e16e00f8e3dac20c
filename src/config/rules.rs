//! Rules: which requests they are for, and what these need.

use std::collections::BTreeMap;

use super::raw::{
    RawExtractOnly, RawHeaderMatcher, RawMatch, RawProviderAndAudiences, RawQueryParameterMatcher, RawRequirement,
    RawRequirements, RawRule, RawStringMatcher, expected,
};
use super::{ConfigError, Mode, Provider, Requirement, Result, Rule, TokenRequirement};
use super::{at, bounded, claim_rules, each, header_name, managed_header, pattern};
use crate::limits::CONFIG_ENTRIES;
use crate::matcher::{
    Case, HeaderKind, HeaderMatcher, PathMatcher, QueryKind, QueryMatcher, RequestMatcher, StringKind, StringMatcher,
};

/// As in `jwt_authn`.
const VERIFICATION_STATUS_HEADER: &str = "x-jwt-signature-verified";

pub(super) fn requirements(
    raw: BTreeMap<String, RawRequirement>,
    providers: &[Provider],
) -> Result<BTreeMap<String, Requirement>> {
    bounded("requirement_map", raw.len(), CONFIG_ENTRIES)?;
    let mut named = BTreeMap::new();
    for (name, raw) in raw {
        let requirement = requirement(&format!("requirement_map.{name}"), raw, providers)?;
        named.insert(name, requirement);
    }
    Ok(named)
}

pub(super) fn rules(
    raw: Vec<RawRule>,
    mode: Mode,
    providers: &[Provider],
    named: &BTreeMap<String, Requirement>,
) -> Result<Vec<Rule>> {
    bounded("rules", raw.len(), CONFIG_ENTRIES)?;
    each("rules", raw, |path, raw| {
        let requirement = match (raw.requires, raw.requirement_name) {
            (None, None) => Requirement::Nothing,
            (Some(raw), None) => requirement(&at(path, "requires"), raw, providers)?,
            (None, Some(name)) => named.get(&name).cloned().ok_or_else(|| {
                let known = expected(&name, named.keys().map(String::as_str));
                let message = format!("`{name}` is not in `requirement_map`, {known}");
                ConfigError::new(at(path, "requirement_name"), message)
            })?,
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(path, "both `requires` and `requirement_name`, one of them was expected"));
            }
        };
        let matcher = request_matcher(&at(path, "match"), raw.r#match)?;
        Ok(Rule { matcher, requirement, mode: raw.mode.map_or(mode, Mode::from) })
    })
}

fn requirement(path: &str, raw: RawRequirement, providers: &[Provider]) -> Result<Requirement> {
    let kinds = [
        raw.provider_name.is_some(),
        raw.provider_and_audiences.is_some(),
        raw.requires_any.is_some(),
        raw.requires_all.is_some(),
        raw.allow_missing.is_some(),
        raw.allow_missing_or_failed.is_some(),
        raw.extract_only_without_validation.is_some(),
    ];
    let count = kinds.iter().filter(|is_given| **is_given).count();
    if count > 1 {
        return Err(ConfigError::new(path, format!("{count} kinds of requirement, one was expected")));
    }
    if !raw.claims.is_empty() && raw.provider_name.is_none() {
        return Err(ConfigError::new(at(path, "claims"), "`claims` without `provider_name` beside it"));
    }
    let provider = |field: &str, name: &str| {
        providers.iter().position(|provider| provider.name == name).ok_or_else(|| {
            let known = expected(name, providers.iter().map(|provider| provider.name.as_str()));
            ConfigError::new(at(path, field), format!("unknown provider `{name}`, {known}"))
        })
    };
    let group = |field: &str, raw: RawRequirements| {
        let path = format!("{path}.{field}.requirements");
        if raw.requirements.len() < 2 {
            let message = format!("{} requirements, at least two were expected", raw.requirements.len());
            return Err(ConfigError::new(path, message));
        }
        bounded(&path, raw.requirements.len(), CONFIG_ENTRIES)?;
        each(&path, raw.requirements, |path, raw| requirement(path, raw, providers))
    };
    if let Some(name) = raw.provider_name {
        return Ok(Requirement::Token(TokenRequirement {
            provider: provider("provider_name", &name)?,
            audiences: None,
            claims: claim_rules(&at(path, "claims"), raw.claims)?,
        }));
    }
    if let Some(RawProviderAndAudiences { provider_name, audiences }) = raw.provider_and_audiences {
        return Ok(Requirement::Token(TokenRequirement {
            provider: provider("provider_and_audiences.provider_name", &provider_name)?,
            // As in `jwt_authn`: none here means those of the provider, not that any will do.
            audiences: Some(audiences).filter(|audiences| !audiences.is_empty()),
            claims: Vec::new(),
        }));
    }
    if let Some(any) = raw.requires_any {
        return group("requires_any", any).map(Requirement::Any);
    }
    if let Some(all) = raw.requires_all {
        return group("requires_all", all).map(Requirement::All);
    }
    if let Some(RawExtractOnly { verification_status_header }) = raw.extract_only_without_validation {
        let name = verification_status_header.filter(|name| !name.is_empty());
        let name = name.as_deref().unwrap_or(VERIFICATION_STATUS_HEADER);
        let field = at(path, "extract_only_without_validation.verification_status_header");
        return managed_header(&field, name).map(Requirement::ExtractOnly);
    }
    Ok(match (raw.allow_missing, raw.allow_missing_or_failed) {
        (Some(_), _) => Requirement::AllowMissing,
        (None, Some(_)) => Requirement::AllowMissingOrFailed,
        (None, None) => Requirement::Nothing,
    })
}

fn request_matcher(path: &str, raw: RawMatch) -> Result<RequestMatcher> {
    let case = if raw.case_sensitive == Some(false) { Case::Ignored } else { Case::Sensitive };
    let by_path = |kind, case| PathMatcher::Path(StringMatcher::new(kind, case));
    let path_matcher = match (raw.prefix, raw.path, raw.safe_regex, raw.path_separated_prefix, raw.connect_matcher) {
        (Some(prefix), None, None, None, None) => by_path(StringKind::Prefix(prefix.into()), case),
        (None, Some(exact), None, None, None) => by_path(StringKind::Exact(exact.into()), case),
        (None, None, Some(regex), None, None) => {
            let pattern = pattern(&at(path, "safe_regex.regex"), &regex.regex)?;
            by_path(StringKind::Regex(pattern), Case::Sensitive)
        }
        (None, None, None, Some(prefix), None) => {
            if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let message = format!("found `{prefix}`, a path that does not end in `/` was expected");
                return Err(ConfigError::new(at(path, "path_separated_prefix"), message));
            }
            PathMatcher::Separated(StringMatcher::new(StringKind::Prefix(prefix.into()), case))
        }
        (None, None, None, None, Some(_)) => PathMatcher::Connect,
        _ => {
            let message = "exactly one of `prefix`, `path`, `safe_regex`, `path_separated_prefix` and \
                               `connect_matcher` was expected";
            return Err(ConfigError::new(path, message));
        }
    };
    Ok(RequestMatcher {
        path: path_matcher,
        headers: each(&at(path, "headers"), raw.headers, header_matcher)?,
        query: each(&at(path, "query_parameters"), raw.query_parameters, query_matcher)?,
    })
}

pub(super) fn string_matcher(path: &str, raw: RawStringMatcher) -> Result<StringMatcher> {
    let kind = match (raw.exact, raw.prefix, raw.suffix, raw.contains, raw.safe_regex) {
        (Some(text), None, None, None, None) => StringKind::Exact(text.into()),
        (None, Some(text), None, None, None) => StringKind::Prefix(text.into()),
        (None, None, Some(text), None, None) => StringKind::Suffix(text.into()),
        (None, None, None, Some(text), None) => StringKind::Contains(text.into()),
        (None, None, None, None, Some(regex)) => {
            StringKind::Regex(pattern(&at(path, "safe_regex.regex"), &regex.regex)?)
        }
        _ => {
            let message = "exactly one of `exact`, `prefix`, `suffix`, `contains` and `safe_regex` was expected";
            return Err(ConfigError::new(path, message));
        }
    };
    Ok(StringMatcher::new(kind, if raw.ignore_case { Case::Ignored } else { Case::Sensitive }))
}

fn header_matcher(path: &str, raw: RawHeaderMatcher) -> Result<HeaderMatcher> {
    let value = |kind| HeaderKind::Value(StringMatcher::new(kind, Case::Sensitive));
    let mut kinds = Vec::new();
    if let Some(raw) = raw.string_match {
        kinds.push(HeaderKind::Value(string_matcher(&at(path, "string_match"), raw)?));
    }
    kinds.extend(raw.range_match.map(|range| HeaderKind::Range { start: range.start, end: range.end }));
    kinds.extend(raw.present_match.map(HeaderKind::Present));
    kinds.extend(raw.exact_match.map(|text| value(StringKind::Exact(text.into()))));
    kinds.extend(raw.prefix_match.map(|text| value(StringKind::Prefix(text.into()))));
    kinds.extend(raw.suffix_match.map(|text| value(StringKind::Suffix(text.into()))));
    kinds.extend(raw.contains_match.map(|text| value(StringKind::Contains(text.into()))));
    if let Some(regex) = raw.safe_regex_match {
        kinds.push(value(StringKind::Regex(pattern(&at(path, "safe_regex_match.regex"), &regex.regex)?)));
    }
    if kinds.len() > 1 {
        return Err(ConfigError::new(path, format!("{} kinds of comparison, one was expected", kinds.len())));
    }
    let name = match raw.name.strip_prefix(':') {
        Some(pseudo) => format!(":{}", header_name(&at(path, "name"), pseudo)?),
        None => header_name(&at(path, "name"), &raw.name)?,
    };
    Ok(HeaderMatcher {
        // Envoy knows `Host` as `:authority`, whatever the client calls it.
        name: if name == "host" { ":authority".to_owned() } else { name },
        kind: kinds.pop().unwrap_or(HeaderKind::Present(true)),
        invert: raw.invert_match,
        missing_is_empty: raw.treat_missing_header_as_empty,
    })
}

fn query_matcher(path: &str, raw: RawQueryParameterMatcher) -> Result<QueryMatcher> {
    if raw.name.is_empty() {
        return Err(ConfigError::new(at(path, "name"), "empty, a parameter's name was expected"));
    }
    let kind = match (raw.string_match, raw.present_match) {
        (Some(raw), None) => QueryKind::Value(string_matcher(&at(path, "string_match"), raw)?),
        (None, present) => QueryKind::Present(present.unwrap_or(true)),
        (Some(_), Some(_)) => {
            return Err(ConfigError::new(path, "both `string_match` and `present_match`, one of them was expected"));
        }
    };
    Ok(QueryMatcher { name: raw.name.into_bytes(), kind })
}
