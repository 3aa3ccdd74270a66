//! Names are hostile text: they come from nodes that nobody has let in yet, and are shown everywhere.

/// Bytes of a name or a group: those of the longest host name.
const NAME: usize = 253;

/// Why a text is no name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {NAME} bytes, none of them invisible or control characters, and no space at its ends"
)]
pub struct NoName;

/// A name that shows as what it is: nothing invisible, nothing that turns the direction of writing, nothing that breaks a line.
pub fn checked(name: &str) -> Result<&str, NoName> {
    let good = !name.is_empty()
        && name.len() <= NAME
        && name.trim() == name
        && !name.chars().any(is_hidden);
    good.then_some(name).ok_or(NoName)
}

/// Control, format and separator characters (Unicode Cc, Cf, Zl, Zp), private ones, and what fills without being seen.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
            | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_as_what_it_is() {
        for good in [
            "web-1",
            "db.example.org",
            "Köln 3",
            "サーバー",
            &"a".repeat(253),
        ] {
            assert_eq!(checked(good), Ok(good));
        }
        for bad in [
            "",
            " ",
            " web",
            "web ",
            "a\nb",
            "a\tb",
            "\u{1b}[31mred",
            "a\u{7f}",
            "a\u{202e}gnp.exe",
            "a\u{200b}b",
            "\u{feff}a",
            "a\u{2028}b",
            "a\u{e0041}",
            &"a".repeat(254),
        ] {
            assert_eq!(checked(bad), Err(NoName), "{bad:?}");
        }
    }
}
