//! A web page as a reader has it: its words, without the markup that may break them up.

/// A page that was fetched.
#[derive(Debug, Clone)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The markup.
    pub html: String,
}

impl Page {
    /// The words of the page: tags dropped, entities read, white space as it stands.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut rest = self.html.as_str();
        while let Some(open) = rest.find('<') {
            text.push_str(&rest[..open]);
            let tag = &rest[open..];
            let end = hidden(tag).unwrap_or_else(|| tag.find('>').map_or(tag.len(), |at| at + 1));
            rest = &tag[end..];
        }
        text.push_str(rest);
        unescape(&text)
    }

    /// Whether a reader finds `words`, ignoring how they are broken into lines.
    pub fn shows(&self, words: &str) -> bool {
        let text = self.text();
        text.contains(words)
            || squeeze(&text).contains(&squeeze(words))
            || unescape(&self.html).contains(words)
    }
}

/// Script and style are nothing that a reader sees.
fn hidden(tag: &str) -> Option<usize> {
    ["script", "style"].iter().find_map(|name| {
        let opens = tag.strip_prefix('<')?.starts_with(name);
        let close = format!("</{name}>");
        opens.then(|| tag.find(&close).map_or(tag.len(), |at| at + close.len()))
    })
}

fn unescape(text: &str) -> String {
    let pairs = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ];
    pairs
        .iter()
        .fold(text.to_owned(), |text, (entity, character)| {
            text.replace(entity, character)
        })
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
