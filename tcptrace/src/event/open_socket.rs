//! Sockets that processes have open, as the kernel side's iterator lists them.

use tcptrace_common::open_socket::{OpenSocket as Row, PORT_LOCKED};
use zerocopy::FromBytes as _;

use super::decode::{endpoints, options};
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
    rows.map(|row| {
        let row = Row::read_from_bytes(row)
            .map_err(|_wrong_size| DecodeError::Short { kind: 0, len: row.len() })?;
        Ok(open_socket(&row))
    })
    .collect()
}

fn open_socket(from: &Row) -> OpenSocket {
    OpenSocket {
        endpoints: endpoints(&from.endpoints),
        sk: from.sk,
        inode: from.ino,
        cookie: from.cookie,
        pid: from.tgid,
        fd: from.fd,
        uid: from.uid,
        depth: from.depth,
        limit: from.limit,
        state: SocketState::from_kernel(from.state),
        options: options(from.options.into()),
        mptcp: from.mptcp != 0,
        port_by_number: from.locks & PORT_LOCKED != 0,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;
    use tcptrace_common::wire;
    use zerocopy::IntoBytes as _;

    use super::*;

    fn row(pid: u32, port: u16) -> Row {
        Row {
            endpoints: wire::Endpoints {
                local: Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets(),
                local_port: port,
                family: wire::AF_INET,
                netns: 4_026_531_840,
                ..wire::Endpoints::default()
            },
            sk: 0xffff_8880_0000_1000,
            ino: 77,
            cookie: 99,
            tgid: pid,
            fd: 5,
            uid: 1000,
            depth: 2,
            limit: 128,
            state: 10,
            options: 1,
            mptcp: 0,
            locks: PORT_LOCKED,
        }
    }

    #[test]
    fn rows_follow_each_other() {
        let sockets = decode_open_sockets([row(1, 80), row(2, 443)].as_bytes()).unwrap();
        let [first, second] = sockets.as_slice() else { panic!("{sockets:?}") };
        assert_eq!(first.endpoints.local, "127.0.0.1:80".parse().unwrap());
        assert_eq!((first.endpoints.remote, first.endpoints.netns), (None, 4_026_531_840));
        assert_eq!((first.pid, first.fd, first.inode, first.uid), (1, 5, 77, 1000));
        assert_eq!((first.depth, first.limit, first.state), (2, 128, SocketState::Listen));
        assert_eq!((first.sk, first.cookie), (0xffff_8880_0000_1000, 99));
        assert!(first.options.reuseaddr() && !first.mptcp && first.port_by_number);
        assert_eq!((second.pid, second.endpoints.local.port()), (2, 443));
    }

    #[test]
    fn a_cut_row_is_an_error() {
        let row = row(1, 80);
        assert!(decode_open_sockets(row.as_bytes().get(..95).unwrap()).is_err());
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
