//! The compressed form, `NAME.mtree.zst`.

use std::io::{self, BufRead, BufReader, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// The window is at most 8 MiB, so that whoever reads a manifest knows how much memory that takes.
pub const MAX_WINDOW_LOG: u32 = 23;

/// Lines are mostly digests, of which more effort makes no less: of half a million files level 1 makes 18.7 MB in a fifth of the time
/// in which level 9 makes 22.3 MB.
const LEVEL: i32 = 1;

/// What a statement says of a compressed manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// The size of the compressed file.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The size before compression.
    pub uncompressed: u64,
}

/// Compresses all of `plain` into `out`.
pub fn compress(mut plain: impl Read, out: impl Write) -> io::Result<Compressed> {
    let mut encoder = zstd::Encoder::new(
        Measured {
            out,
            size: 0,
            hasher: Sha256::new(),
        },
        LEVEL,
    )?;
    encoder.window_log(MAX_WINDOW_LOG)?;
    encoder.include_checksum(true)?;
    let uncompressed = io::copy(&mut plain, &mut encoder)?;
    let mut measured = encoder.finish()?;
    measured.flush()?;
    Ok(Compressed {
        size: measured.size,
        sha256: Digest::from_bytes(measured.hasher.finalize().into()),
        uncompressed,
    })
}

/// Compresses what is written to it, and tells digest and size of the plain bytes: for pins and snapshots, which are named
/// by them, sent once and not kept.
pub struct Compressor<W: Write> {
    encoder: zstd::Encoder<'static, W>,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(out, LEVEL)?;
        encoder.window_log(MAX_WINDOW_LOG)?;
        encoder.include_checksum(true)?;
        Ok(Self {
            encoder,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    /// Ends the frame: what was written into, the SHA-256 of the plain bytes, and how many they were.
    pub fn finish(self) -> io::Result<(W, Digest, u64)> {
        let out = self.encoder.finish()?;
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        Ok((out, digest, self.size))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// The plain bytes of a compressed manifest. Reading is an error where a larger window is asked for, and where there are
/// more or fewer bytes than the signed size: at most one of them is ever decompressed beyond it.
pub fn decompressor(compressed: impl Read, signed_uncompressed: u64) -> impl BufRead {
    BufReader::with_capacity(
        64 << 10,
        Plain {
            decoder: Decoder::Closed(Some(compressed)),
            left: signed_uncompressed,
        },
    )
}

/// Passes bytes on and remembers how many and which.
struct Measured<W> {
    out: W,
    size: u64,
    hasher: Sha256,
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Opened at the first read, so that whoever makes one has no error to handle twice.
enum Decoder<R: Read> {
    Closed(Option<R>),
    Open(zstd::Decoder<'static, BufReader<R>>),
}

struct Plain<R: Read> {
    decoder: Decoder<R>,
    left: u64,
}

impl<R: Read> Plain<R> {
    fn decoder(&mut self) -> io::Result<&mut zstd::Decoder<'static, BufReader<R>>> {
        if let Decoder::Closed(compressed) = &mut self.decoder {
            let compressed = compressed
                .take()
                .ok_or_else(|| io::Error::other("the decompressor could not be opened"))?;
            let mut decoder = zstd::Decoder::new(compressed)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            self.decoder = Decoder::Open(decoder);
        }
        match &mut self.decoder {
            Decoder::Open(decoder) => Ok(decoder),
            Decoder::Closed(_) => Err(io::Error::other("the decompressor could not be opened")),
        }
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.left;
        let decoder = self.decoder()?;
        if left == 0 {
            return match decoder.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the manifest is larger than its signed size",
                )),
            };
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = decoder.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the manifest is smaller than its signed size",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
