//! Which requests a rule is for: comparisons as Envoy's route matching makes them.

use regex_lite::{Regex, RegexBuilder};

use crate::limits::REGEX_BYTES;
use crate::request::Request;

/// A regular expression that must match a whole value, in time linear in the value's length.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression as RE2 reads it: classes such as `\w` are ASCII, `.` is any character but a line feed.
    ///
    /// # Errors
    /// What is wrong with it, or that it is too large when compiled.
    pub fn new(expression: &str) -> Result<Self, String> {
        let compile = |expression: &str| {
            let built = RegexBuilder::new(expression).size_limit(REGEX_BYTES).build();
            built.map_err(|error| error.to_string())
        };
        // Compiled alone first: what is anchored must be one expression, and not the end of one and the start of another.
        compile(expression)?;
        compile(&format!(r"\A(?:{expression})\z")).map(Self)
    }

    /// Whether the whole of `value` matches. Where it is not UTF-8, each octet is a character of its own: such a value
    /// goes on matching `.*`, and so takes no request out of a rule.
    pub fn matches(&self, value: &[u8]) -> bool {
        match std::str::from_utf8(value) {
            Ok(text) => self.0.is_match(text),
            Err(_) => self.0.is_match(&value.iter().copied().map(char::from).collect::<String>()),
        }
    }

    /// The expression as it was typed.
    pub fn expression(&self) -> &str {
        let anchored = self.0.as_str();
        anchored.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z")).unwrap_or(anchored)
    }
}

/// A comparison with a string (`envoy.type.matcher.v3.StringMatcher`).
#[derive(Clone, Debug)]
pub struct StringMatcher {
    /// What is compared with. In lower case if case is ignored.
    pub kind: StringKind,
    /// Whether case counts. Regular expressions see to it themselves.
    pub case: Case,
}

/// How a string is compared.
#[derive(Clone, Debug)]
pub enum StringKind {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    Regex(Pattern),
}

/// Whether ASCII case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// It counts.
    Sensitive,
    /// It does not.
    Ignored,
}

impl StringMatcher {
    /// A comparison of this kind.
    pub fn new(kind: StringKind, case: Case) -> Self {
        let fold = |text: Vec<u8>| if case == Case::Ignored { text.to_ascii_lowercase() } else { text };
        let kind = match kind {
            StringKind::Exact(text) => StringKind::Exact(fold(text)),
            StringKind::Prefix(text) => StringKind::Prefix(fold(text)),
            StringKind::Suffix(text) => StringKind::Suffix(fold(text)),
            StringKind::Contains(text) => StringKind::Contains(fold(text)),
            StringKind::Regex(pattern) => StringKind::Regex(pattern),
        };
        Self { kind, case }
    }

    /// Whether `value` matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        let equal = |a: &u8, b: &u8| match self.case {
            Case::Sensitive => a == b,
            Case::Ignored => a.to_ascii_lowercase() == *b,
        };
        let same = |part: Option<&[u8]>, text: &[u8]| {
            part.is_some_and(|part| part.len() == text.len() && part.iter().zip(text).all(|(a, b)| equal(a, b)))
        };
        match &self.kind {
            StringKind::Exact(text) => same(Some(value), text),
            StringKind::Prefix(text) => same(value.get(..text.len()), text),
            StringKind::Suffix(text) => {
                same(value.len().checked_sub(text.len()).and_then(|start| value.get(start..)), text)
            }
            StringKind::Contains(text) => {
                text.is_empty() || value.windows(text.len()).any(|window| same(Some(window), text))
            }
            StringKind::Regex(pattern) => pattern.matches(value),
        }
    }
}

/// Which requests a rule is for: all of it must match.
#[derive(Clone, Debug)]
pub struct RequestMatcher {
    /// What the path must be.
    pub path: PathMatcher,
    /// What headers must be.
    pub headers: Vec<HeaderMatcher>,
    /// What query parameters must be.
    pub query: Vec<QueryMatcher>,
}

impl RequestMatcher {
    /// Whether a request matches, whose path is `path`: it is found once for all rules.
    pub fn matches(&self, path: &[u8], request: &Request) -> bool {
        self.path.matches(path, request)
            && self.headers.iter().all(|matcher| matcher.matches(request))
            && self.query.iter().all(|matcher| matcher.matches(request))
    }
}

/// A comparison with the path of a request, without query and fragment.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// The path as a string.
    Path(StringMatcher),
    /// The path is this, or goes on with a slash.
    Separated(StringMatcher),
    /// Any path of a `CONNECT` request.
    Connect,
}

impl PathMatcher {
    fn matches(&self, path: &[u8], request: &Request) -> bool {
        match self {
            Self::Path(matcher) => matcher.matches(path),
            Self::Separated(matcher) => {
                let end = match &matcher.kind {
                    StringKind::Prefix(prefix) => prefix.len(),
                    _ => path.len(),
                };
                matcher.matches(path) && path.get(end).is_none_or(|next| *next == b'/')
            }
            Self::Connect => request.method() == b"CONNECT",
        }
    }
}

/// A comparison with a header (`envoy.config.route.v3.HeaderMatcher`). Several lines are one, joined by commas.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// The header's name, in lower case.
    pub name: String,
    /// How it is compared.
    pub kind: HeaderKind,
    /// Whether the result is turned around.
    pub invert: bool,
    /// Whether a header that is not there counts as an empty one; else it matches nothing.
    pub missing_is_empty: bool,
}

/// How a header is compared.
#[derive(Clone, Debug)]
pub enum HeaderKind {
    /// It is there, or it is not.
    Present(bool),
    /// Its value as a string.
    Value(StringMatcher),
    /// Its value is a decimal integer from `start` up to but not including `end`.
    Range {
        /// The least.
        start: i64,
        /// One more than the greatest.
        end: i64,
    },
}

impl HeaderMatcher {
    /// Of several lines of one header, each is compared by itself and one is enough, as in Envoy: a second line takes no
    /// request out of a rule.
    fn matches(&self, request: &Request) -> bool {
        let any = |is_so: &dyn Fn(&[u8]) -> bool| request.values(&self.name).any(is_so);
        let found = match (&self.kind, request.has(&self.name)) {
            (HeaderKind::Present(present), found) => (found || self.missing_is_empty) == *present,
            (_, false) if !self.missing_is_empty => return false,
            (HeaderKind::Value(matcher), false) => matcher.matches(b""),
            (HeaderKind::Value(matcher), true) => any(&|value| matcher.matches(value)),
            (HeaderKind::Range { .. }, false) => false,
            (HeaderKind::Range { start, end }, true) => any(&|value| {
                let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<i64>().ok());
                number.is_some_and(|number| (*start..*end).contains(&number))
            }),
        };
        found != self.invert
    }
}

/// A comparison with a query parameter (`envoy.config.route.v3.QueryParameterMatcher`): its first value, as it was sent.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// The parameter's name.
    pub name: Vec<u8>,
    /// How it is compared.
    pub kind: QueryKind,
}

/// How a query parameter is compared.
#[derive(Clone, Debug)]
pub enum QueryKind {
    /// It is there, or it is not.
    Present(bool),
    /// Its value as a string.
    Value(StringMatcher),
}

impl QueryMatcher {
    fn matches(&self, request: &Request) -> bool {
        let value = request.query().find(|(name, _)| *name == self.name).map(|(_, value)| value);
        match (&self.kind, value) {
            (QueryKind::Present(present), value) => value.is_some() == *present,
            (QueryKind::Value(matcher), Some(value)) => matcher.matches(value),
            (QueryKind::Value(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: StringKind, case: Case, yes: &[&str], no: &[&str]) {
        let matcher = StringMatcher::new(kind, case);
        for value in yes {
            assert!(matcher.matches(value.as_bytes()), "{matcher:?} {value}");
        }
        for value in no {
            assert!(!matcher.matches(value.as_bytes()), "{matcher:?} {value}");
        }
    }

    #[test]
    fn strings() {
        use Case::{Ignored, Sensitive};
        use StringKind::{Contains, Exact, Prefix, Regex, Suffix};
        let regex = |text: &str| Regex(Pattern::new(text).expect("the test's expression"));
        check(Exact("Ab".into()), Sensitive, &["Ab"], &["ab", "Abc", ""]);
        check(Exact("Ab".into()), Ignored, &["Ab", "aB"], &["abc", ""]);
        check(Prefix("Ab".into()), Sensitive, &["Ab", "Abc"], &["aBc", "A"]);
        check(Prefix("Ab".into()), Ignored, &["aB", "abC"], &["A", "xab"]);
        check(Suffix("yZ".into()), Ignored, &["xYZ", "yz"], &["z", "yzx"]);
        check(Suffix("".into()), Sensitive, &["", "x"], &[]);
        check(Contains("mN".into()), Ignored, &["lMno", "mn"], &["m", ""]);
        check(regex("a|ab"), Sensitive, &["a", "ab"], &["abc", "xa", "a\n"]);
        check(regex("(?i)a.c"), Sensitive, &["AbC"], &["a\nc"]);
        check(regex(r"\w+"), Sensitive, &["az_9"], &["é", ""]);
    }

    #[test]
    fn expressions_match_what_is_not_utf8() {
        let pattern = |text: &str| Pattern::new(text).expect("the test's expression");
        assert!(pattern("/admin/.*").matches(b"/admin/\xff"), "no octet takes a request out of a rule");
        assert!(pattern("/admin/[^/]+/x").matches(b"/admin/\xc3\x28/x"));
        assert!(!pattern("/admin/.*").matches(b"/\xffadmin/"));
        assert!(!pattern("/admin/[a-z]+").matches(b"/admin/\xff"));
        // In UTF-8 a character is one, as in RE2.
        assert!(pattern("/.").matches("/é".as_bytes()));
        assert!(pattern("/[é-ü]").matches("/ö".as_bytes()));
    }

    #[test]
    fn expressions_are_bounded_and_whole() {
        assert!(Pattern::new("a)|(b").is_err(), "an expression cannot leave its anchors");
        assert!(Pattern::new(r"(a)\1").is_err(), "what needs more than linear time does not exist");
        assert!(Pattern::new("(a{1000}){1000}").is_err());
        let slow = Pattern::new("(a*)*b").expect("a classic that others take for ever on");
        assert!(!slow.matches("a".repeat(10_000).as_bytes()));
    }

    #[test]
    fn headers() {
        let request = Request::new([
            ("x-n", "42"),
            ("x-empty", ""),
            ("x-two", "a"),
            ("x-two", "b"),
            ("x-nn", "7"),
            ("x-nn", "9"),
        ]);
        let check = |name: &str, kind: HeaderKind, expected: [bool; 4]| {
            for (i, (invert, missing_is_empty)) in
                [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
            {
                let matcher = HeaderMatcher { name: name.into(), kind: kind.clone(), invert, missing_is_empty };
                assert_eq!(Some(&matcher.matches(&request)), expected.get(i), "{matcher:?}");
            }
        };
        let exact = |text: &str| HeaderKind::Value(StringMatcher::new(StringKind::Exact(text.into()), Case::Sensitive));
        check("x-n", HeaderKind::Present(true), [true, false, true, false]);
        check("x-absent", HeaderKind::Present(true), [false, true, true, false]);
        check("x-absent", HeaderKind::Present(false), [true, false, false, true]);
        check("x-absent", exact(""), [false, false, true, false]);
        check("x-absent", exact("a"), [false, false, false, true]);
        check("x-empty", exact(""), [true, false, true, false]);
        check("x-two", exact("b"), [true, false, true, false]);
        check("x-two", exact("a,b"), [false, true, false, true]);
        check("x-n", HeaderKind::Range { start: 42, end: 43 }, [true, false, true, false]);
        check("x-n", HeaderKind::Range { start: 0, end: 42 }, [false, true, false, true]);
        check("x-two", HeaderKind::Range { start: 0, end: 42 }, [false, true, false, true]);
        check("x-nn", HeaderKind::Range { start: 8, end: 42 }, [true, false, true, false]);
        check("x-absent", HeaderKind::Range { start: 0, end: 42 }, [false, false, false, true]);
    }
}
