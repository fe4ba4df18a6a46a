//! Patterns of the extended dialect: globs, subjects and networks.
//!
//! Matching takes linear time. A glob goes from left to right and never takes back what a star
//! has passed: each run of characters between two stars is found at its first place. A run without
//! `?` is found by the standard library's search; one with `?` has at most 64 characters, so that
//! one machine word follows all places where it may have begun, one step a character.

use std::net::IpAddr;

use smol_str::SmolStr;

/// `*` stands for any run of characters, `?` for one; `\*`, `\?` and `\\` for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Glob(SmolStr);

/// One element of a glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Run,
    One,
    Literal(char),
}

impl Glob {
    /// A glob, unless a run with `?` between two stars has more than [`MAX_GLOB_RUN`] characters.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let elements: Vec<Element> = elements(pattern).collect();
        let runs: Vec<&[Element]> = elements.split(|e| *e == Element::Run).collect();
        let searched = runs.get(1..runs.len().saturating_sub(1)).unwrap_or_default();
        let fits = |run: &&[Element]| run.len() <= MAX_GLOB_RUN || !run.contains(&Element::One);
        searched.iter().all(fits).then(|| Self(pattern.into()))
    }

    pub(super) fn pattern(&self) -> &SmolStr {
        &self.0
    }

    /// What every match begins with.
    pub(super) fn head(&self) -> String {
        let literal = |element| match element {
            Element::Literal(c) => Some(c),
            _ => None,
        };
        elements(&self.0).map_while(literal).collect()
    }

    /// Whether the glob is only stars.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty() && self.0.chars().all(|c| c == '*')
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.run(text, &mut 0)
    }

    /// Adds a step for each character looked at, once for each look.
    fn run(&self, text: &str, steps: &mut usize) -> bool {
        // Runs are cut at unescaped stars; escapes are resolved as a run is read.
        let mut rest = self.0.as_str();
        let (first, mut after) = cut_run(rest);
        let Some(mut text) = strip_start(first, text, steps) else { return false };
        while let Some(next) = after {
            rest = next;
            let (run, further) = cut_run(rest);
            if further.is_none() {
                return ends_with(run, text, steps);
            }
            let Some(left) = find(run, text, steps) else { return false };
            text = left;
            after = further;
        }
        text.is_empty()
    }
}

/// The pattern up to the first star, and what is behind it if there is one.
fn cut_run(pattern: &str) -> (&str, Option<&str>) {
    let mut escaped = false;
    for (at, c) in pattern.char_indices() {
        if c == '*' && !escaped {
            return (pattern.get(..at).unwrap_or_default(), pattern.get(at + 1..));
        }
        escaped = c == '\\' && !escaped;
    }
    (pattern, None)
}

fn elements(pattern: &str) -> impl Iterator<Item = Element> {
    let mut chars = pattern.chars().peekable();
    std::iter::from_fn(move || {
        Some(match chars.next()? {
            '*' => Element::Run,
            '?' => Element::One,
            '\\' => match chars.next_if(|c| matches!(c, '*' | '?' | '\\')) {
                Some(escaped) => Element::Literal(escaped),
                None => Element::Literal('\\'),
            },
            c => Element::Literal(c),
        })
    })
}

fn fits(element: Element, c: char) -> bool {
    element == Element::One || element == Element::Literal(c)
}

/// The text behind a run that it begins with.
fn strip_start<'t>(run: &str, text: &'t str, steps: &mut usize) -> Option<&'t str> {
    let mut chars = text.chars();
    for element in elements(run) {
        *steps += 1;
        if !fits(element, chars.next()?) {
            return None;
        }
    }
    Some(chars.as_str())
}

fn ends_with(run: &str, text: &str, steps: &mut usize) -> bool {
    let length = elements(run).count();
    *steps += length;
    let start = match length {
        0 => Some(text.len()),
        length => text.char_indices().rev().nth(length - 1).map(|(at, _)| at),
    };
    let tail = start.and_then(|start| text.get(start..));
    tail.is_some_and(|tail| strip_start(run, tail, steps) == Some(""))
}

/// The text behind the first place where a run occurs.
fn find<'t>(run: &str, text: &'t str, steps: &mut usize) -> Option<&'t str> {
    if !run.contains(['?', '\\']) {
        let end = text.find(run)? + run.len();
        *steps += end + run.len();
        return text.get(end..);
    }
    let length = elements(run).count();
    *steps += length;
    if length > MAX_GLOB_RUN {
        // Only escapes, no `?`: a constructed glob has nothing else of this length.
        let literal: String = elements(run)
            .filter_map(|element| match element {
                Element::Literal(c) => Some(c),
                _ => None,
            })
            .collect();
        let end = text.find(&literal)? + literal.len();
        *steps += end;
        return text.get(end..);
    }
    // Bit n of `begun`: the last n + 1 characters are the first n + 1 of the run.
    let mut masks = Masks::new(run);
    let (mut begun, whole) = (0u64, 1u64 << (length - 1));
    for (at, c) in text.char_indices() {
        *steps += 1;
        begun = (begun << 1 | 1) & masks.of(c);
        if begun & whole != 0 {
            return text.get(at + c.len_utf8()..);
        }
    }
    None
}

/// At which places of a run a character fits.
struct Masks {
    any: u64,
    /// Sorted by character.
    literals: smallvec::SmallVec<[(char, u64); MAX_GLOB_RUN]>,
    last: Option<(char, u64)>,
}

impl Masks {
    fn new(run: &str) -> Self {
        let mut masks = Self { any: 0, literals: Default::default(), last: None };
        for (place, element) in elements(run).enumerate() {
            match element {
                Element::Literal(c) => masks.literals.push((c, 1 << place)),
                _ => masks.any |= 1 << place,
            }
        }
        masks.literals.sort_unstable();
        masks.literals.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 |= if same { next.1 } else { 0 };
            same
        });
        masks
    }

    fn of(&mut self, c: char) -> u64 {
        if let Some((last, mask)) = self.last
            && last == c
        {
            return mask;
        }
        let found = self.literals.binary_search_by_key(&c, |(literal, _)| *literal);
        let literal = found.ok().and_then(|at| self.literals.get(at)).map_or(0, |(_, mask)| *mask);
        self.last = Some((c, self.any | literal));
        self.any | literal
    }
}

/// Whether a pattern of dot-separated tokens is one: `>` stands only at its end.
pub(super) fn is_subject(pattern: &str) -> bool {
    let mut tokens = pattern.split('.').rev();
    tokens.next();
    tokens.all(|token| token != ">")
}

/// Whether the tokens of a text are those of a pattern; `*` is any token, a final `>` one or more.
pub(super) fn matches_subject(pattern: &str, text: &str) -> bool {
    let mut wanted = pattern.split('.').peekable();
    let mut tokens = text.split('.');
    while let Some(want) = wanted.next() {
        let Some(token) = tokens.next() else { return false };
        if want == ">" && wanted.peek().is_none() {
            return true;
        }
        if want != "*" && want != token {
            return false;
        }
    }
    tokens.next().is_none()
}

/// What every text that matches a subject pattern begins with.
pub(super) fn subject_head(pattern: &str) -> &str {
    let mut end = 0;
    for token in pattern.split('.') {
        if matches!(token, "*" | ">") {
            break;
        }
        end += token.len() + 1;
    }
    pattern.get(..end).unwrap_or(pattern)
}

/// A range of IPv4 or IPv6 addresses, as `ADDRESS/BITS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Network {
    text: SmolStr,
    address: IpAddr,
    bits: u32,
}

impl Network {
    pub(super) fn new(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let digits =
            !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit());
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|_| digits)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        (bits <= max).then(|| Self { text: text.into(), address, bits })
    }

    pub(super) fn text(&self) -> &SmolStr {
        &self.text
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        match (self.address, text.parse()) {
            (IpAddr::V4(network), Ok(IpAddr::V4(address))) => {
                let different = network.to_bits() ^ address.to_bits();
                different.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), Ok(IpAddr::V6(address))) => {
                let different = network.to_bits() ^ address.to_bits();
                different.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Characters of a run with `?` between two stars of a glob.
pub const MAX_GLOB_RUN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str, text: &str) -> bool {
        Glob::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn globs_match_whole_values() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "é\n"], &[]),
            ("a*b?", &["abc", "axxbb", "abbc"], &["ab", "xabc", "abcd"]),
            ("?", &["a", "é", "😀"], &["", "ab"]),
            (r"\*\?\\", &[r"*?\"], &["aab"]),
            (r"a\b", &[r"a\b"], &["ab"]),
            ("*a?c*", &["abc", "xaacx", "aabc"], &["ac", "abbc"]),
            ("**a**", &["a", "bab"], &["", "b"]),
            ("*aab", &["aab", "aaab"], &["aaba"]),
            (r"*\*?x*", &["*ax", "b*yxz"], &["ax", "*x"]),
        ] {
            yes.iter().for_each(|text| assert!(glob(pattern, text), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!glob(pattern, text), "{pattern} {text}"));
        }
    }

    /// The definition, read off: exponential, so for short texts only.
    fn naive(pattern: &[Element], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((Element::Run, rest)), _) => {
                (0..=text.len()).any(|skip| naive(rest, &text[skip..]))
            }
            (Some((element, rest)), Some((c, after))) => fits(*element, *c) && naive(rest, after),
            (Some(_), None) => false,
        }
    }

    #[test]
    fn globs_agree_with_their_definition() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            (state >> 33) as usize % below
        };
        for round in 0..20_000 {
            let pattern: String =
                (0..random(8)).map(|_| ['a', 'b', '*', '?', '\\', 'é'][random(6)]).collect();
            let text: String =
                (0..random(9)).map(|_| ['a', 'b', '*', 'é', '\\'][random(5)]).collect();
            let parts: Vec<_> = elements(&pattern).collect();
            let chars: Vec<_> = text.chars().collect();
            assert_eq!(glob(&pattern, &text), naive(&parts, &chars), "{round}: {pattern} {text}");
        }
    }

    #[test]
    fn hostile_globs_take_linear_time() {
        let text = "a".repeat(4_000);
        for pattern in [
            "*a".repeat(1_000) + "*b*",
            format!("*{}b*", "a".repeat(2_000)),
            format!("*{}b*", "a?".repeat(30)),
            format!("{}b", "*?".repeat(1_500)),
            format!("*{}*", "a?".repeat(32)) + &"*a?b*".repeat(100),
        ] {
            let mut steps = 0;
            Glob::new(&pattern).unwrap().run(&text, &mut steps);
            // Counted, not timed: each character of text and pattern a bounded number of times.
            assert!(steps <= 4 * (text.len() + pattern.len()), "{steps} steps");
        }
        let run = |length| format!("*?{}*", "a".repeat(length - 1));
        assert!(Glob::new(&run(MAX_GLOB_RUN)).is_some());
        assert!(Glob::new(&run(MAX_GLOB_RUN + 1)).is_none());
    }

    #[test]
    fn subjects_match_by_token() {
        for (pattern, yes, no) in [
            (
                "orders.*.created",
                &["orders.eu.created"][..],
                &["orders.created", "orders.a.b.created"][..],
            ),
            ("orders.>", &["orders.a", "orders.a.b"], &["orders", "order.a"]),
            (">", &["a", "a.b", ""], &[]),
            ("*", &["a", ""], &["a.b"]),
            ("a*", &["a*"], &["ab"]),
            ("a.b", &["a.b"], &["a.b.c", "a"]),
        ] {
            yes.iter().for_each(|text| assert!(matches_subject(pattern, text), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!matches_subject(pattern, text), "{pattern} {text}"));
            yes.iter().for_each(|text| assert!(text.starts_with(subject_head(pattern))));
        }
        assert!(is_subject("a.>") && !is_subject("a.>.b"));
    }

    #[test]
    fn networks_contain_addresses_of_their_family() {
        let inside = |network, text| Network::new(network).unwrap().contains(text);
        assert!(inside("10.0.0.0/8", "10.255.1.2") && !inside("10.0.0.0/8", "11.0.0.0"));
        assert!(inside("10.1.2.3/8", "10.0.0.1"), "host bits are ignored");
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "::1"));
        assert!(inside("10.0.0.1/32", "10.0.0.1") && !inside("10.0.0.1/32", "10.0.0.2"));
        assert!(inside("2001:db8::/32", "2001:db8:1::5") && !inside("2001:db8::/32", "2001:db9::"));
        assert!(inside("::/0", "::1") && !inside("10.0.0.0/8", "no address"));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/+8", "/8", "a/8"] {
            assert!(Network::new(bad).is_none(), "{bad}");
        }
    }
}
