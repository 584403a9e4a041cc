//! Reads JSON lines from a file or standard input, gzipped or not, and finds each line's key.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::line::{LONGEST, LineReader, find_key};

/// The sample that ships with the program; its README says where it comes from.
const SAMPLE: &[u8] = include_bytes!("../../../data/telemetry-small.jsonl.gz");

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The maximum number of lines that are passed on at once: those that can be read without waiting, so a slow
/// input is not delayed.
const BATCH: usize = 500;

/// An unpacked input.
type Plain = BufReader<Box<dyn Read + Send>>;

/// The source of the lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Sample,
    StandardInput,
    File(PathBuf),
}

/// An input that could be opened.
pub(crate) struct Input {
    source: Source,
    /// `None` for standard input, which may have nothing to read yet.
    first: Option<Plain>,
    key: String,
    repeat: u32,
}

/// One line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1 in each pass, blank lines included.
    pub(crate) number: u64,
    /// The number of earlier passes.
    pub(crate) pass: u32,
    /// Without the line break; only the beginning of an overlong line.
    pub(crate) bytes: Bytes,
    /// The key, or the reason why there is none.
    pub(crate) key: Result<String, String>,
}

impl Source {
    /// Reads from `-`, a file, or the sample.
    pub(crate) fn new(input: Option<PathBuf>) -> Self {
        match input {
            None => Self::Sample,
            Some(path) if path.as_os_str() == "-" => Self::StandardInput,
            Some(path) => Self::File(path),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Sample => "the sample".into(),
            Self::StandardInput => "standard input".into(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Opens it, so that an unreadable input is reported before anything starts. Keys are in
    /// the field `key`. The input is read `repeat` times.
    pub(crate) fn open(self, key: String, repeat: u32) -> anyhow::Result<Input> {
        if self == Self::StandardInput && repeat > 1 {
            bail!("standard input can be read once: --repeat {repeat} needs a file");
        }
        let first = match self {
            Self::StandardInput => None,
            _ => Some(self.begin()?),
        };
        Ok(Input {
            source: self,
            first,
            key,
            repeat,
        })
    }

    fn begin(&self) -> anyhow::Result<Plain> {
        let begin = || -> io::Result<_> {
            match self {
                Self::Sample => plain(SAMPLE),
                Self::StandardInput => plain(io::stdin()),
                Self::File(path) => plain(File::open(path)?),
            }
        };
        begin().with_context(|| format!("cannot read {}", self.name()))
    }
}

impl Input {
    /// Reads everything, and passes the lines to `take` in batches until `take` returns `false`. Blocks.
    pub(crate) fn read(self, mut take: impl FnMut(Vec<Line>) -> bool) -> anyhow::Result<()> {
        let mut first = self.first;
        for pass in 0..self.repeat {
            let input = match first.take() {
                Some(input) => input,
                None => self.source.begin()?,
            };
            let mut lines = LineReader::new(input);
            let mut batch = Vec::new();
            loop {
                if (!lines.has_more() || batch.len() == BATCH)
                    && !batch.is_empty()
                    && !take(std::mem::take(&mut batch))
                {
                    return Ok(());
                }
                let line = lines.next().with_context(|| {
                    let name = self.source.name();
                    format!("cannot read {name} after line {}", lines.number())
                })?;
                let Some((bytes, whole)) = line else { break };
                if bytes.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let line = Line {
                    number: lines.number(),
                    pass,
                    key: match whole {
                        true => find_key(&bytes, &self.key),
                        false => Err(format!("longer than {LONGEST} bytes")),
                    },
                    bytes,
                };
                batch.push(line);
            }
        }
        Ok(())
    }
}

/// Unpacks an input that begins with the gzip magic number.
fn plain(mut input: impl Read + Send + 'static) -> io::Result<Plain> {
    let mut begin = Vec::new();
    input.by_ref().take(2).read_to_end(&mut begin)?;
    let gzip = begin == GZIP;
    let input = Cursor::new(begin).chain(input);
    let input: Box<dyn Read + Send> = match gzip {
        true => Box::new(MultiGzDecoder::new(BufReader::new(input))),
        false => Box::new(input),
    };
    Ok(BufReader::with_capacity(1 << 16, input))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn read(bytes: &[u8], repeat: u32) -> Vec<Line> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let source = Source::new(Some(file.path().to_owned()));
        let mut lines = Vec::new();
        let input = source.open("id".into(), repeat).unwrap();
        input
            .read(|batch| {
                lines.extend(batch);
                true
            })
            .unwrap();
        lines
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    const TEXT: &[u8] = b"{\"id\":\"a\"}\n\n{\"id\":7}\r\nnot json\n{\"id\":\"b\"}";

    #[test]
    fn lines_are_numbered_and_bad_ones_stop_nothing() {
        let lines = read(TEXT, 1);
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.key.as_deref().ok()))
            .collect();
        let wanted = [(1, Some("a")), (3, Some("7")), (4, None), (5, Some("b"))];
        assert_eq!(seen, wanted);
        assert_eq!(lines[1].bytes, "{\"id\":7}");
    }

    #[test]
    fn gzip_is_known_by_its_first_bytes() {
        assert_eq!(read(&gzip(TEXT), 1), read(TEXT, 1));
        let twice = [gzip(b"{\"id\":1}\n"), gzip(b"{\"id\":2}\n")].concat();
        assert_eq!(read(&twice, 1).len(), 2, "gzip files may be joined");
    }

    #[test]
    fn short_inputs_are_inputs() {
        assert_eq!(read(b"", 3).len(), 0);
        assert_eq!(read(b"7", 1).len(), 1);
        assert_eq!(read(b"\n\n \n", 1).len(), 0);
    }

    #[test]
    fn each_pass_reads_the_file_again() {
        let passes: Vec<_> = read(TEXT, 2)
            .iter()
            .map(|line| (line.pass, line.number))
            .collect();
        assert_eq!(passes.len(), 8);
        assert_eq!(passes[4], (1, 1));
    }

    #[test]
    fn a_cut_gzip_file_is_an_error_after_its_lines() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let packed = gzip(&TEXT.repeat(1000));
        file.write_all(&packed[..packed.len() - 9]).unwrap();
        let source = Source::new(Some(file.path().to_owned()));
        let mut lines = 0;
        let input = source.open("id".into(), 1).unwrap();
        let result = input.read(|batch| {
            lines += batch.len();
            true
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("after line"), "{error}");
        assert!(lines > 0);
    }

    #[test]
    fn the_sample_is_whole() {
        let mut lines = 0;
        let input = Source::Sample.open("vehicleId".into(), 1).unwrap();
        input
            .read(|batch| {
                assert!(batch.iter().all(|line| line.key.is_ok()));
                lines += batch.len();
                true
            })
            .unwrap();
        assert_eq!(lines, 20_000);
    }
}
