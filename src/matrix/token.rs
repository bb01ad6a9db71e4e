//! Pagination tokens.

use super::Error;

/// The longest token in a URL, in bytes. Common servers and proxies accept request lines of up to 8 KiB. That of
/// `/messages` contains two tokens, the room's id and a few parameters.
const MOST_ENCODED: usize = 3 << 10;

/// A pagination token that can be stored and sent. It is opaque, and only compared for equality (P20).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// `None`: the text is empty or cannot be sent.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        let token = token.into();
        is_usable(&token).then_some(Self(token))
    }

    /// The token in `field` of a response. `None` for the empty string, which counts as no token (P5).
    ///
    /// # Errors
    /// [`Error::Malformed`] if it cannot be stored or sent. The response cannot be used without it, because the next
    /// request needs it.
    pub(super) fn served(field: &str, token: String) -> Result<Option<Self>, Error> {
        if token.is_empty() {
            return Ok(None);
        }
        let length = encoded_length(&token);
        Self::new(token).map(Some).ok_or_else(|| {
            Error::Malformed(format!(
                "{field}: the pagination token cannot be used: it contains NUL, or has {length} bytes in a URL, where \
                 at most {MOST_ENCODED} can be sent"
            ))
        })
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a token can be stored and sent. PostgreSQL does not store NUL.
pub(super) fn is_usable(token: &str) -> bool {
    !token.is_empty() && !token.contains('\0') && encoded_length(token) <= MOST_ENCODED
}

/// Its length in the query of a URL.
fn encoded_length(token: &str) -> usize {
    let encoded = |byte: u8| if byte.is_ascii_alphanumeric() || b"*-._ ".contains(&byte) { 1 } else { 3 };
    token.bytes().map(encoded).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_sent_back_is_a_token() {
        let longest = "a".repeat(MOST_ENCODED);
        for token in ["t1", "s1_2~3.4|5", "ü", &longest] {
            assert_eq!(Token::served("end", token.to_owned()).unwrap().unwrap().as_str(), token);
        }
        assert_eq!(Token::served("end", String::new()).unwrap(), None);
        let (long, encoded) = ("a".repeat(MOST_ENCODED + 1), "%".repeat(MOST_ENCODED / 3 + 1));
        for token in ["a\0b", &long, &encoded, &"ü".repeat(MOST_ENCODED / 6 + 1)] {
            assert!(Token::served("end", token.to_owned()).is_err(), "{} bytes", token.len());
            assert_eq!(Token::new(token), None);
        }
    }

    #[test]
    fn the_length_is_that_in_the_url() {
        for token in ["aZ09*-._ ", "t1|2~3+4%5/6?7#8", "äöü\u{1f600}", "\n\t\u{7f}"] {
            let mut url = reqwest::Url::parse("http://h/").unwrap();
            url.query_pairs_mut().append_pair("f", token);
            assert_eq!(url.query().unwrap().len() - 2, encoded_length(token), "{token:?}");
        }
    }
}
