//! What the guest's agent tells the host, over one virtio serial port: frames of a kind, a job number and bytes.
//!
//! Both ends are this same file: the agent in the guest is the xtask binary itself.

use std::io::{self, Read, Write};
use std::time::Duration;

/// Guards the reader's memory against a stream that lost its step; the agent sends far smaller pieces.
const LONGEST_PAYLOAD: u32 = 1 << 20;

/// One message of the agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// The job's place in the list; 0 where a frame is about no job.
    pub(crate) job: u32,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The guest is up; the payload is its kernel release.
    Ready,
    /// A job is about to run.
    Started,
    Stdout,
    Stderr,
    /// The job is over; the payload is an [`Ending`].
    Ended,
    /// All jobs are over.
    Done,
    /// The agent itself cannot go on; the payload says why.
    Failed,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Ready, Self::Started, Self::Stdout, Self::Stderr, Self::Ended, Self::Done, Self::Failed];

    fn to_byte(self) -> u8 {
        match self {
            Self::Ready => b'R',
            Self::Started => b'S',
            Self::Stdout => b'o',
            Self::Stderr => b'e',
            Self::Ended => b'E',
            Self::Done => b'D',
            Self::Failed => b'F',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

/// How a job ended, as its guest saw it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    Exited(i32),
    /// Killed by this signal.
    Signaled(i32),
    /// Killed by the agent because its time was over.
    TimedOut,
    /// Could not be run at all: not found, not executable.
    NotStarted(String),
}

/// A command to run in the guest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Job {
    pub(crate) argv: Vec<String>,
    timeout_ms: u64,
}

impl Job {
    pub(crate) fn new(argv: Vec<String>, timeout: Duration) -> Self {
        Self { argv, timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Writes one frame, whole.
pub(crate) fn write(out: &mut impl Write, kind: Kind, job: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(9 + payload.len());
    frame.push(kind.to_byte());
    frame.extend(job.to_le_bytes());
    frame.extend(length.to_le_bytes());
    frame.extend(payload);
    out.write_all(&frame)
}

/// Reads one frame; `None` at the stream's end between two frames.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut kind = [0; 1];
    if input.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let [kind] = kind;
    let kind =
        Kind::from_byte(kind).ok_or_else(|| io::Error::other(format!("no frame starts with {kind:#x}")))?;
    let job = read_u32(input)?;
    let length = read_u32(input)?;
    if length > LONGEST_PAYLOAD {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    input.read_exact(&mut payload)?;
    Ok(Some(Frame { kind, job, payload }))
}

fn read_u32(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let mut wire = Vec::new();
        for (number, kind) in (0..).zip(Kind::ALL) {
            write(&mut wire, kind, number, &[0, 0xff, b'\n', b'\r']).unwrap();
        }
        let mut input = wire.as_slice();
        for (number, kind) in (0..).zip(Kind::ALL) {
            let frame = read(&mut input).unwrap().unwrap();
            assert_eq!(frame, Frame { kind, job: number, payload: vec![0, 0xff, b'\n', b'\r'] });
        }
        assert_eq!(read(&mut input).unwrap(), None);
    }

    #[test]
    fn a_cut_or_foreign_stream_is_an_error() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Stdout, 1, b"hello").unwrap();
        for cut in 1..wire.len() {
            assert!(read(&mut &wire[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&mut &b"[    0.0] Linux"[..]).is_err());
        assert!(read(&mut &b"o\0\0\0\0\xff\xff\xff\xff"[..]).is_err(), "absurd length");
    }
}
