//! Sockets that processes have open, as the kernel side's iterator lists them.

use tcptrace_common::open_socket::{OpenSocket as Row, PORT_LOCKED};

use super::cursor::{Cursor, Ended};
use super::decode::{options, read_endpoints};
use super::{DecodeError, Endpoints, SocketOptions, SocketState};

/// A process's descriptor for a TCP socket that has a port. A socket that is shared or duplicated comes once for each
/// descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Its ends.
    pub endpoints: Endpoints,
    /// Address in kernel memory.
    pub sk: u64,
    /// Inode number of its file.
    pub inode: u64,
    /// Its cookie; 0 until somebody asked for it.
    pub cookie: u64,
    /// Process.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
    /// Its user.
    pub uid: u32,
    /// Accept-queue depth, of a listener.
    pub depth: u32,
    /// Accept-queue limit, of a listener.
    pub limit: u32,
    /// Its state.
    pub state: SocketState,
    /// Its options.
    pub options: SocketOptions,
    /// An MPTCP socket, not a TCP one.
    pub mptcp: bool,
    /// bind() asked for this port by number. Otherwise the kernel chose it, or it is the listener's that accepted it.
    pub port_by_number: bool,
}

/// All rows that the iterator wrote.
///
/// # Errors
/// When the bytes are not a whole number of rows: another version of the kernel side wrote them.
pub fn decode_open_sockets(bytes: &[u8]) -> Result<Vec<OpenSocket>, DecodeError> {
    let rows = bytes.chunks(size_of::<Row>());
    rows.map(|row| decode(row).map_err(|Ended| DecodeError::Short { kind: 0, len: row.len() })).collect()
}

fn decode(row: &[u8]) -> Result<OpenSocket, Ended> {
    let from = &mut Cursor::new(row);
    Ok(OpenSocket {
        endpoints: read_endpoints(from)?,
        sk: from.u64()?,
        inode: from.u64()?,
        cookie: from.u64()?,
        pid: from.u32()?,
        fd: from.u32()?,
        uid: from.u32()?,
        depth: from.u32()?,
        limit: from.u32()?,
        state: SocketState::from_kernel(from.u8()?),
        options: options(from.u8()?.into()),
        mptcp: from.u8()? != 0,
        port_by_number: from.u8()? & PORT_LOCKED != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row as the kernel side writes it, field by field.
    fn row(pid: u32, port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend([0; 10]);
        bytes.extend([0xff, 0xff, 127, 0, 0, 1]);
        bytes.extend([0; 16]);
        for word in [port, 0, 2, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [4_026_531_840_u32, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [0xffff_8880_0000_1000_u64, 77, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [pid, 5, 1000, 2, 128] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend([10, 1, 0, PORT_LOCKED]);
        bytes
    }

    #[test]
    fn rows_follow_each_other() {
        let bytes = [row(1, 80), row(2, 443)].concat();
        let sockets = decode_open_sockets(&bytes).unwrap();
        let [first, second] = sockets.as_slice() else { panic!("{sockets:?}") };
        assert_eq!(first.endpoints.local, "127.0.0.1:80".parse().unwrap());
        assert_eq!((first.endpoints.remote, first.endpoints.netns), (None, 4_026_531_840));
        assert_eq!((first.pid, first.fd, first.inode, first.uid), (1, 5, 77, 1000));
        assert_eq!((first.depth, first.limit, first.state), (2, 128, SocketState::Listen));
        assert!(first.options.reuseaddr() && !first.mptcp && first.port_by_number);
        assert_eq!((second.pid, second.endpoints.local.port()), (2, 443));
    }

    #[test]
    fn a_cut_row_is_an_error() {
        let bytes = row(1, 80);
        assert!(decode_open_sockets(bytes.get(..95).unwrap()).is_err());
        assert_eq!(decode_open_sockets(&[]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let whole = bytes.len() % size_of::<Row>() == 0;
            prop_assert_eq!(decode_open_sockets(&bytes).is_ok(), whole);
        }
    }
}
