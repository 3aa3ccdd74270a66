//! A manifest that comes in pieces, for who reads bytes.

use std::io::{self, Read};

use tokio::sync::mpsc;

/// Reads what is sent into a channel, on a thread that may wait; the end of the channel is the end of the bytes.
#[derive(Debug)]
pub struct PieceReader {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl PieceReader {
    /// Reads from the other end of the channel.
    pub fn new(pieces: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            pieces,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.piece, self.at) = (piece, 0),
                None => return Ok(0),
            }
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        let (Some(from), Some(to)) = (rest.get(..length), buffer.get_mut(..length)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_one_text_whatever_their_sizes() {
        let (sender, receiver) = mpsc::channel(8);
        for piece in [&b"#mtree\n"[..], b"", b"./a", b" type=fifo\n"] {
            sender.try_send(piece.to_vec()).unwrap();
        }
        drop(sender);
        let mut text = String::new();
        PieceReader::new(receiver)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "#mtree\n./a type=fifo\n");
    }
}
