//! The schema: every column, declared once. Writing, reading and the documentation follow from this list.
//!
//! Columns are found by name, so one may be added anywhere in a minor version; a reader takes a missing one for empty.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};

use super::column::{
    Address, Build as _, Column, Flag, Many, Text, Time, U8, U16, U32, U64, View as _, Word,
};
use super::order::{Order, others_between};

/// A column, for the documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    /// Of the member; see [`name`].
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) text: &'static str,
}

/// A count that is named `deferred`, and whose column has had this name since format 1: names of columns stay.
const DEFERRED: (&str, &str) = ("deferred", "deferred_requests");

/// The name of the column of a member.
pub(super) fn name(member: &'static str) -> &'static str {
    if member == DEFERRED.0 { DEFERRED.1 } else { member }
}

/// The member of the column of that name.
fn member(name: &str) -> &str {
    if name == DEFERRED.1 { DEFERRED.0 } else { name }
}

macro_rules! columns {
    ($( $(#[doc = $text:literal])+ $name:ident: $kind:ty, )+) => {
        /// The columns of a batch that is being collected.
        #[derive(Default)]
        pub(super) struct Builders {
            $( pub(super) $name: <$kind as Column>::Builder, )+
        }

        impl Builders {
            /// The batch, its rows by kind of event; the builders are empty afterwards.
            ///
            /// # Errors
            /// When the values do not make arrays.
            pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
                let kinds = self.event.keys();
                let order = Order::by(kinds);
                for (row, others) in others_between(kinds).enumerate() {
                    self.others_between.put(row, others);
                }
                let columns: Vec<ArrayRef> = vec![$( self.$name.finish(&order)?, )+];
                RecordBatch::try_new(schema(), in_file_order(&columns))
            }

            /// About how many bytes are in the columns whose values have no size of their own.
            pub(super) fn weight(&self) -> usize {
                0 $( + self.$name.weight() )+
            }
        }

        /// The columns of a batch that is being read.
        #[derive(Default)]
        pub(super) struct Views {
            $( pub(super) $name: <$kind as Column>::View, )+
        }

        impl Views {
            pub(super) fn new(batch: &RecordBatch) -> Self {
                let mut views = Self::default();
                for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                    match member(field.name()) {
                        $( stringify!($name) => views.$name = <$kind as Column>::View::new(array), )+
                        // Of a later minor version.
                        _ => {}
                    }
                }
                views
            }
        }

        /// Every column.
        pub(super) const DESCRIPTIONS: &[Description] = &[
            $( Description {
                name: stringify!($name),
                kind: <$kind as Column>::NAME,
                text: concat!($($text),+),
            }, )+
        ];

        fn fields() -> Vec<Field> {
            vec![$( Field::new(name(stringify!($name)), <$kind as Column>::data_type(), true), )+]
        }
    };
}

/// All columns, the counts of a listener among them.
macro_rules! with_the_counters {
    ($( $(#[doc = $doc:literal])+ $count:ident, )+) => {
        columns! {
            /// When it happened, or was read.
            time: Time,
            /// What happened: the name of the kind of event.
            event: Word,
            /// Network namespace: inode number of `/proc/PID/ns/net`.
            netns: U32,
            /// Process that acted. In rows of softirq context (drops, retransmissions, `enqueue`), where nobody acts, and in samples:
            /// the process that is known to have the listener.
            pid: U32,
            /// Its thread that acted.
            tid: U32,
            /// Its real user id.
            uid: U32,
            /// Its control group (v2): inode number of the directory; 0 if unknown.
            cgroup: U64,
            /// Its name. Whatever the process set: escape it before showing it.
            comm: Word,
            /// Its container, pod or unit, if it has been looked at.
            container: Word,
            /// Address family of the socket: 4 or 6.
            family: U8,
            /// Local address; for a bind that failed, the requested one.
            local_ip: Address,
            /// Local port; 0 where none is bound.
            local_port: U16,
            /// Remote address. Of `prefix-sample`: the network.
            remote_ip: Address,
            /// Remote port.
            remote_port: U16,
            /// Index of the device that the socket is bound to; 0 for none.
            device: U32,
            /// Identity of the socket, or of the listener, while it lives: a number that was made from its address in kernel memory with a key
            /// that is written nowhere. It is the same in all parts of one recording, and another in every other.
            sk: U64,
            /// Inode number of that socket's file; 0 if it has none.
            inode: U64,
            /// Identity of the connection that was enqueued or accepted, likewise.
            child: U64,
            /// Connections in the listener's accept queue.
            queue: U32,
            /// Limit of the accept queue: it is full when `queue > queue_limit`.
            queue_limit: U32,
            /// Requests in the listener's SYN queue.
            syn_queue: U32,
            /// Why: of a drop, of a retransmission.
            cause: Word,
            /// How: a port was taken, a connection was enqueued, a request or a connect ended, a sample was made, bind or listen failed.
            how: Word,
            /// The listener's count of this kind of event, this one included; of `lost`, how many; of `port-survey`, ports in use; of `prefix-sample`, connections.
            total: U64,
            /// Of `accept`: time in the accept queue; of `enqueue`: since the first SYN-ACK; of `port-released`: how long it was held; of `synack-retransmit` and
            /// `request-end`: since the request's first SYN-ACK; of `connect`: since connect() was called. Nanoseconds.
            duration_ns: U64,
            /// How often the request's timer had run out; of `connect`: how often its SYN was sent again.
            timeouts: U32,
            /// Socket options, a bit set: 1 SO_REUSEADDR, 2 SO_REUSEPORT, 4 IPV6_V6ONLY, 8 IP_FREEBIND, 16 IP_TRANSPARENT.
            options: U8,
            /// `net.ipv4.tcp_syncookies` at a SYN drop.
            syncookies: U32,
            /// Argument of listen().
            backlog: U32,
            /// errno of what failed.
            errno: U32,
            /// The port goes on being held by a TIME_WAIT remnant.
            time_wait: Flag,
            /// This row repeats what was known when this part of a rotated recording began.
            carried: Flag,
            /// Of `listener-sample`: the kernel's `sk_drops` of the listener, since its birth. Like all counts of a listener that follow, which
            /// are since the tracer attached, it only grows.
            socket_drops: U64,
            $( $(#[doc = $doc])+ $count: U64, )+
            /// Longest accept wait, ns.
            wait_max_ns: U64,
            /// Deepest accept queue seen.
            depth_max: U32,
            /// Most requests seen in the SYN queue.
            syn_queue_max: U32,
            /// When a SYN-ACK was last sent again.
            last_retransmit: Time,
            /// When a connection was last accepted.
            last_accept: Time,
            /// When a connection was last enqueued.
            last_enqueue: Time,
            /// Process that accepted last.
            last_acceptor_pid: U32,
            /// Thread that accepted last.
            last_acceptor_tid: U32,
            /// Histogram of accept waits since the tracer attached: start of each bucket that is not empty, ns. A bucket ends at
            /// most 6.25 % above its start.
            wait_bucket_ns: Many,
            /// Histogram of accept waits: how many in each of these buckets.
            wait_bucket_count: Many,
            /// Histogram of handshake times (first SYN-ACK to final ACK): start of each bucket that is not empty, ns.
            handshake_bucket_ns: Many,
            /// Histogram of handshake times: how many in each of these buckets.
            handshake_bucket_count: Many,
            /// Of `connect` and `connect-sample`, of this process's connects to this destination: since when is counted.
            connects_since: Time,
            /// SYNs sent again.
            connects_syns_again: U64,
            /// Connects whose SYN was sent again.
            connects_unanswered: U64,
            /// Of these: established in the end.
            connects_established: U64,
            /// Connects answered by RST.
            connects_refused: U64,
            /// Connects ended by another error.
            connects_unreachable: U64,
            /// Connects that nothing answered.
            connects_timed_out: U64,
            /// Connects called off after their SYN was sent again.
            connects_cancelled: U64,
            /// connect() calls that failed at once.
            connects_errors: U64,
            /// Of `synack-retransmit` and `request-end`: the final ACK has come, and was put aside.
            acked: Flag,
            /// Of these: the listener has TCP_DEFER_ACCEPT.
            defers_accept: Flag,
            /// Of `request-end`: type and code of the ICMP message that ended it, as 256 × type + code.
            icmp: U16,
            /// SYN-ACKs sent again for one of these reasons, where they are not told apart.
            retransmits_unknown: U64,
            /// How many events of other kinds came between the row before, if it is of the same kind, and this one; of a batch's first row of its
            /// kind: how many came before it in the batch.
            others_between: U16,
            /// Of rare events: all of it, as JSON. Such a row is read back from here; its other columns are for queries.
            detail: Text,
        }

        /// The counts of a listener, each of which has a column of its own name.
        macro_rules! for_each_count {
            ($each:ident) => {
                $each! { $($count)+ retransmits_unknown socket_drops wait_max_ns depth_max syn_queue_max }
            };
        }
    };
}
tcptrace_common::listener_counters!(with_the_counters);
pub(super) use for_each_count;

/// The members in the order of a file's columns. A file that has lost its header is read by it, so it stays as it is, whatever the
/// order above: what is new comes last, where `TCPTRACE_BLESS=1 cargo test -p tcptrace record::schema` puts it.
const FILE_ORDER: &str = include_str!("columns.txt");

/// Of each column of a file, which member it is.
static MEMBERS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let place = |column: &str| DESCRIPTIONS.iter().position(|member| member.name == column);
    FILE_ORDER.lines().filter_map(place).collect()
});

/// What there is of each member, in a file's order.
fn in_file_order<T: Clone>(of_members: &[T]) -> Vec<T> {
    MEMBERS.iter().filter_map(|member| of_members.get(*member).cloned()).collect()
}

/// The column that says in which order the rows of a batch came.
pub(super) const ORDER: &str = "others_between";

/// The schema, without a recording's own metadata.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(in_file_order(&fields()))));
    Arc::clone(&SCHEMA)
}

/// The columns of a recording: name, type, and what stands there.
pub(crate) fn columns() -> impl Iterator<Item = (String, arrow_schema::DataType, &'static str)> {
    let schema = schema();
    DESCRIPTIONS.iter().filter_map(move |column| {
        let field = schema.field_with_name(name(column.name)).ok()?;
        Some((field.name().clone(), field.data_type().clone(), column.text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_every_member_once() {
        let known: Vec<&str> = FILE_ORDER.lines().collect();
        let is_new = |name: &&str| !known.contains(name);
        let new: Vec<&str> = DESCRIPTIONS.iter().map(|member| member.name).filter(is_new).collect();
        if std::env::var_os("TCPTRACE_BLESS").is_some() && !new.is_empty() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/record/columns.txt");
            std::fs::write(path, format!("{FILE_ORDER}{}\n", new.join("\n"))).unwrap();
        }
        assert!(new.is_empty(), "not in columns.txt, which TCPTRACE_BLESS=1 writes: {new:?}");
        assert_eq!(MEMBERS.len(), known.len(), "a column of no member");
        assert_eq!(
            MEMBERS.iter().collect::<std::collections::BTreeSet<_>>().len(),
            known.len(),
            "a member has two columns"
        );
    }

    #[test]
    fn columns_have_names_and_texts_of_their_own() {
        let mut names: Vec<&str> = DESCRIPTIONS.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DESCRIPTIONS.len());
        assert!(DESCRIPTIONS.iter().all(|column| column.text.trim().ends_with('.')));
        assert!(DESCRIPTIONS.iter().all(|column| member(name(column.name)) == column.name));
        assert!(schema().field_with_name("deferred_requests").is_ok());
    }
}
