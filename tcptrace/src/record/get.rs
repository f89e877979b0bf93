//! From a row to its event.

use std::net::SocketAddr;

use arrow_array::RecordBatch;

use crate::event::{
    Accept, Acceptor, AckDrop, Connect, ConnectSample, ConnectTotals, Distribution, Endpoints, Enqueue,
    Event, Family, Kind, ListenerRef, ListenerSample, ListenerTotals, PortReleased, PortTaken, RequestEnd,
    SocketOptions, Syn, SynAckRetransmit, SynDrop, Task, Timestamp,
};

use super::column::WordView;
use super::names::{Named, Typed};
use super::order::arrival;
use super::schema::{ORDER, Views, for_each_count};

/// Why a row is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// A column that the kind of event needs is empty, or says something unknown.
    #[error("column {0} is empty or unknown")]
    Column(&'static str),
    /// `detail` is not what this version of tcptrace writes.
    #[error("{0}")]
    Detail(String),
    /// A kind of event that this version does not know.
    #[error("unknown kind of event {0:?}")]
    Unknown(String),
}

/// A batch, to be read row by row.
pub(super) struct Rows {
    views: Views,
    /// For each word of the `event` column: the kind.
    kinds: Vec<Option<Typed>>,
    /// The rows in the order in which they came.
    arrived: Vec<u32>,
}

impl Rows {
    /// The rows of a batch.
    ///
    /// # Errors
    /// When the order in which they came is not understood.
    pub(super) fn new(batch: &RecordBatch) -> Result<Self, RowError> {
        let views = Views::new(batch);
        let kinds = views.event.values().map(|word| word.and_then(Typed::of_word)).collect();
        let arrived = if batch.column_by_name(ORDER).is_some() {
            let place = |row| (views.event.key(row), views.others_between.get(row).unwrap_or_default());
            arrival((0..batch.num_rows()).map(place)).ok_or(RowError::Column(ORDER))?
        } else {
            // Before format 2, rows stood as they came.
            (0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)).collect()
        };
        Ok(Self { views, kinds, arrived })
    }

    /// The rows in the order in which they came.
    pub(super) fn arrived(&self) -> &[u32] {
        &self.arrived
    }

    /// Whether the row repeats what was known when a part of a rotated recording began.
    pub(super) fn is_carried(&self, row: usize) -> bool {
        self.views.carried.get(row).unwrap_or(false)
    }

    /// The event of a row.
    ///
    /// # Errors
    /// When it is not understood.
    pub(super) fn get(&self, row: usize) -> Result<Event, RowError> {
        let views = &self.views;
        let time = Timestamp::from_nanos(need(views.time.get(row), "time")?);
        if let Some(json) = views.detail.get(row) {
            let kind = serde_json::from_str(json).map_err(|error| {
                RowError::Detail(format!(
                    "{}: {error}",
                    views.event.get(row).unwrap_or("event without a name")
                ))
            })?;
            return Ok(Event { time, kind });
        }
        let word = need(views.event.key(row), "event")?;
        let Some(Some(kind)) = self.kinds.get(word) else {
            return Err(RowError::Unknown(views.event.get(row).unwrap_or_default().to_owned()));
        };
        self.typed(row, time, *kind)
    }

    fn typed(&self, row: usize, time: Timestamp, kind: Typed) -> Result<Event, RowError> {
        let views = &self.views;
        let kind = match kind {
            Typed::Tick => Kind::Tick,
            Typed::End => Kind::End,
            Typed::Syn => Kind::Syn(Syn {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                answer: word(&views.how, row, "how")?,
            }),
            Typed::SynDrop => Kind::SynDrop(SynDrop {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                cause: word(&views.cause, row, "cause")?,
                syncookies: need(views.syncookies.get(row), "syncookies")?,
                total: need(views.total.get(row), "total")?,
            }),
            Typed::AckDrop => Kind::AckDrop(AckDrop {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                cause: word(&views.cause, row, "cause")?,
                total: need(views.total.get(row), "total")?,
            }),
            Typed::Enqueue => Kind::Enqueue(Enqueue {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                child: need(views.child.get(row), "child")?,
                // Before these columns came, nothing told them apart.
                how: word(&views.how, row, "how").unwrap_or_default(),
                handshake_ns: views.duration_ns.get(row),
            }),
            Typed::Accept => Kind::Accept(Box::new(Accept {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                task: self.task(row)?,
                wait_ns: views.duration_ns.get(row),
                child: need(views.child.get(row), "child")?,
            })),
            Typed::PortTaken => Kind::PortTaken(Box::new(PortTaken {
                endpoints: self.endpoints(row)?,
                task: self.task(row)?,
                sk: need(views.sk.get(row), "sk")?,
                how: word(&views.how, row, "how")?,
                options: SocketOptions::from_bits(need(views.options.get(row), "options")?),
            })),
            Typed::PortReleased => Kind::PortReleased(Box::new(PortReleased {
                endpoints: self.endpoints(row)?,
                sk: need(views.sk.get(row), "sk")?,
                held_ns: need(views.duration_ns.get(row), "duration_ns")?,
                pid: need(views.pid.get(row), "pid")?,
                comm: need(views.comm.get(row), "comm")?.into(),
                how: word(&views.how, row, "how")?,
                time_wait: need(views.time_wait.get(row), "time_wait")?,
            })),
            Typed::SynAckRetransmit => Kind::SynAckRetransmit(SynAckRetransmit {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                age_ns: views.duration_ns.get(row),
                cause: word(&views.cause, row, "cause")?,
                timeouts: need(views.timeouts.get(row), "timeouts")?,
                total: need(views.total.get(row), "total")?,
                acked: views.acked.get(row).unwrap_or_default(),
                deferred: views.defers_accept.get(row).unwrap_or_default(),
            }),
            Typed::RequestEnd => Kind::RequestEnd(RequestEnd {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                age_ns: views.duration_ns.get(row),
                how: word(&views.how, row, "how")?,
                timeouts: need(views.timeouts.get(row), "timeouts")?,
                total: need(views.total.get(row), "total")?,
                acked: views.acked.get(row).unwrap_or_default(),
                deferred: views.defers_accept.get(row).unwrap_or_default(),
                icmp: views.icmp.get(row).map(u16::to_be_bytes).map(Into::into),
            }),
            Typed::Connect => Kind::Connect(Box::new(Connect {
                endpoints: self.endpoints(row)?,
                // Every task has a thread.
                task: views.tid.get(row).map(|_| self.task(row)).transpose()?,
                sk: need(views.sk.get(row), "sk")?,
                inode: need(views.inode.get(row), "inode")?,
                age_ns: views.duration_ns.get(row),
                result: word(&views.how, row, "how")?,
                errno: views.errno.get(row),
                syns_again: need(views.timeouts.get(row), "timeouts")?,
                totals: self.connects(row)?,
            })),
            Typed::ConnectSample => Kind::ConnectSample(Box::new(ConnectSample {
                netns: need(views.netns.get(row), "netns")?,
                pid: need(views.pid.get(row), "pid")?,
                remote: SocketAddr::new(
                    need(views.remote_ip.get(row), "remote_ip")?,
                    need(views.remote_port.get(row), "remote_port")?,
                ),
                totals: self.connects(row)?,
            })),
            Typed::ListenerSample => Kind::ListenerSample(Box::new(ListenerSample {
                endpoints: self.endpoints(row)?,
                listener: self.listener(row)?,
                source: word(&views.how, row, "how")?,
                totals: self.totals(row),
                waits: distribution(views.wait_bucket_ns.get(row), views.wait_bucket_count.get(row)),
                handshakes: distribution(
                    views.handshake_bucket_ns.get(row),
                    views.handshake_bucket_count.get(row),
                ),
            })),
        };
        Ok(Event { time, kind })
    }

    fn endpoints(&self, row: usize) -> Result<Endpoints, RowError> {
        let views = &self.views;
        let family = match views.family.get(row) {
            Some(4) => Family::V4,
            Some(6) => Family::V6,
            _ => return Err(RowError::Column("family")),
        };
        let local = SocketAddr::new(
            need(views.local_ip.get(row), "local_ip")?,
            need(views.local_port.get(row), "local_port")?,
        );
        let remote = match views.remote_ip.get(row) {
            Some(ip) => Some(SocketAddr::new(ip, need(views.remote_port.get(row), "remote_port")?)),
            None => None,
        };
        Ok(Endpoints {
            netns: need(views.netns.get(row), "netns")?,
            family,
            local,
            remote,
            device: need(views.device.get(row), "device")?,
        })
    }

    fn listener(&self, row: usize) -> Result<ListenerRef, RowError> {
        let views = &self.views;
        Ok(ListenerRef {
            sk: need(views.sk.get(row), "sk")?,
            inode: need(views.inode.get(row), "inode")?,
            depth: need(views.queue.get(row), "queue")?,
            limit: need(views.queue_limit.get(row), "queue_limit")?,
            syn_queue: need(views.syn_queue.get(row), "syn_queue")?,
        })
    }

    fn task(&self, row: usize) -> Result<Task, RowError> {
        let views = &self.views;
        Ok(Task {
            pid: need(views.pid.get(row), "pid")?,
            tid: need(views.tid.get(row), "tid")?,
            uid: need(views.uid.get(row), "uid")?,
            cgroup: need(views.cgroup.get(row), "cgroup")?,
            comm: need(views.comm.get(row), "comm")?.into(),
        })
    }

    fn connects(&self, row: usize) -> Result<ConnectTotals, RowError> {
        let views = &self.views;
        Ok(ConnectTotals {
            since: Timestamp::from_nanos(need(views.connects_since.get(row), "connects_since")?),
            syns_again: need(views.connects_syns_again.get(row), "connects_syns_again")?,
            unanswered: need(views.connects_unanswered.get(row), "connects_unanswered")?,
            established: need(views.connects_established.get(row), "connects_established")?,
            refused: need(views.connects_refused.get(row), "connects_refused")?,
            unreachable: need(views.connects_unreachable.get(row), "connects_unreachable")?,
            timed_out: need(views.connects_timed_out.get(row), "connects_timed_out")?,
            cancelled: need(views.connects_cancelled.get(row), "connects_cancelled")?,
            errors: need(views.connects_errors.get(row), "connects_errors")?,
        })
    }

    fn totals(&self, row: usize) -> ListenerTotals {
        let views = &self.views;
        macro_rules! get {
            ($($field:ident)+) => {
                ListenerTotals {
                    $( $field: views.$field.get(row), )+
                    last_retransmit: views.last_retransmit.get(row).map(Timestamp::from_nanos),
                    last_accept: views.last_accept.get(row).map(Timestamp::from_nanos),
                    last_enqueue: views.last_enqueue.get(row).map(Timestamp::from_nanos),
                    last_acceptor: match (views.last_acceptor_pid.get(row), views.last_acceptor_tid.get(row)) {
                        (Some(pid), Some(tid)) => Some(Acceptor { pid, tid }),
                        _ => None,
                    },
                }
            };
        }
        for_each_count!(get)
    }
}

#[inline]
fn need<T>(value: Option<T>, column: &'static str) -> Result<T, RowError> {
    // Not `ok_or`: an error that is made for every value, and thrown away, costs time.
    let Some(value) = value else { return Err(RowError::Column(column)) };
    Ok(value)
}

fn word<T: Named>(view: &WordView, row: usize, column: &'static str) -> Result<T, RowError> {
    need(view.get(row).and_then(T::of_word), column)
}

fn distribution(starts: Option<Vec<u64>>, counts: Option<Vec<u64>>) -> Option<Distribution> {
    Some(Distribution::from_buckets(starts?.into_iter().zip(counts?)))
}
