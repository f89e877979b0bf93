//! Records of listeners, their queues and their half-open requests.

use tcptrace_common::{listener::ACCEPTOR_SLOTS, record};

use super::Body;
use super::parts::{age, listener_ref, options, read_endpoints, task, task_and_flags};
use crate::event::cursor::{Cursor, Ended};
use crate::event::{
    Accept, AcceptFail, Acceptor, AckDrop, AckDropCause, Endpoints, Enqueue, EnqueuedBy, Kind, Listen,
    ListenerClosed, ListenerRef, ListenerSample, ListenerTotals, NoListener, RequestEnd, RequestEnding,
    RetransmitCause, SampleSource, Syn, SynAckRetransmit, SynAnswer, SynDrop, SynDropCause,
};

/// A `ListenerState`, decoded.
pub(super) struct State {
    totals: ListenerTotals,
    depth: u32,
    limit: u32,
    endpoints: Endpoints,
    inode: u64,
}

impl State {
    pub(super) fn into_sample(self, sk: u64) -> ListenerSample {
        ListenerSample {
            endpoints: self.endpoints,
            listener: ListenerRef {
                sk,
                inode: self.inode,
                depth: self.depth,
                limit: self.limit,
                syn_queue: 0,
            },
            source: SampleSource::Observed,
            totals: self.totals,
            waits: None,
            handshakes: None,
        }
    }
}

impl Body {
    pub(super) fn listen(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let task = task(from)?;
        let backlog = from.u32()?;
        let somaxconn = from.u32()?;
        let options = options(from.u32()?);
        let flags = from.u32()?;
        Ok(Kind::Listen(Box::new(Listen {
            endpoints,
            listener,
            task,
            backlog: (flags & record::LISTEN_BACKLOG_SEEN != 0).then_some(backlog),
            somaxconn: (somaxconn != 0).then_some(somaxconn),
            options,
            again: flags & record::LISTEN_AGAIN != 0,
        })))
    }

    pub(super) fn syn_drop(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        Ok(Kind::SynDrop(SynDrop {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            cause: match from.u32()? {
                record::SYN_DROP_ACCEPT_QUEUE => SynDropCause::AcceptQueue,
                record::SYN_DROP_SYN_QUEUE => SynDropCause::SynQueue,
                record::SYN_DROP_MAX_SYN_BACKLOG => SynDropCause::MaxSynBacklog,
                record::SYN_DROP_NO_ROUTE => SynDropCause::NoRoute,
                _ => SynDropCause::Other,
            },
            syncookies: from.u32()?,
            total: from.u64()?,
        }))
    }

    pub(super) fn ack_drop(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let cause = match from.u32()? {
            record::ACK_DROP_ACCEPT_QUEUE => AckDropCause::AcceptQueue,
            _ => AckDropCause::Other,
        };
        from.skip::<4>()?;
        Ok(Kind::AckDrop(AckDrop { endpoints, listener, cause, total: from.u64()? }))
    }

    pub(super) fn synack_retransmit(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let again = SynAckRetransmit {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            age_ns: age(from.u64()?),
            cause: match from.u32()? {
                record::RETRANSMIT_DUPLICATE_SYN => RetransmitCause::DuplicateSyn,
                _ => RetransmitCause::Timer,
            },
            timeouts: from.u32()?,
            total: from.u64()?,
            acked: false,
            deferred: false,
        };
        let flags = from.u32()?;
        from.skip::<4>()?;
        Ok(Kind::SynAckRetransmit(SynAckRetransmit {
            acked: flags & record::REQUEST_ACKED != 0,
            deferred: flags & record::REQUEST_DEFERRED != 0,
            ..again
        }))
    }

    pub(super) fn request_end(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let end = RequestEnd {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            age_ns: age(from.u64()?),
            how: match from.u32()? {
                record::END_LISTENER_CLOSED => RequestEnding::ListenerClosed,
                record::END_RESET => RequestEnding::Reset,
                record::END_ABORTED => RequestEnding::Aborted,
                record::END_ICMP => RequestEnding::Icmp,
                record::END_JOINED => RequestEnding::Joined,
                _ => RequestEnding::Expired,
            },
            timeouts: from.u32()?,
            total: from.u64()?,
            acked: false,
            deferred: false,
            icmp: None,
        };
        let flags = from.u32()?;
        let [code, kind, ..] = from.u32()?.to_le_bytes();
        Ok(Kind::RequestEnd(RequestEnd {
            acked: flags & record::REQUEST_ACKED != 0,
            deferred: flags & record::REQUEST_DEFERRED != 0,
            icmp: (end.how == RequestEnding::Icmp).then_some((kind, code)),
            ..end
        }))
    }

    pub(super) fn enqueue(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let enqueue = Enqueue {
            endpoints: read_endpoints(from)?,
            listener: listener_ref(from)?,
            child: from.u64()?,
            handshake_ns: age(from.u64()?),
            how: match from.u32()? {
                record::ENQUEUE_COOKIE => EnqueuedBy::Cookie,
                record::ENQUEUE_FAST_OPEN => EnqueuedBy::FastOpen,
                _ => EnqueuedBy::Handshake,
            },
        };
        from.skip::<4>()?;
        Ok(Kind::Enqueue(enqueue))
    }

    pub(super) fn accept(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let task = task(from)?;
        let wait_ns = from.u64()?;
        Ok(Kind::Accept(Box::new(Accept {
            endpoints,
            listener,
            task,
            wait_ns: (wait_ns != record::WAIT_UNKNOWN).then_some(wait_ns),
            child: from.u64()?,
        })))
    }

    pub(super) fn listener_closed(&self, from: &mut Cursor<'_>) -> Result<Kind, Ended> {
        let endpoints = read_endpoints(from)?;
        let listener = listener_ref(from)?;
        let (task, flags) = task_and_flags(from)?;
        let (exiting, by_kernel) = (flags.exiting, flags.kernel);
        let state = self.listener_state(from)?;
        // A listener that the kernel side kept no state of: the struct is all zero, and a listener's port never is.
        let last = (state.endpoints.local.port() != 0).then_some(state.totals);
        Ok(Kind::ListenerClosed(Box::new(ListenerClosed {
            endpoints,
            listener,
            task,
            exiting,
            by_kernel,
            last,
        })))
    }

    pub(super) fn listener_state(&self, from: &mut Cursor<'_>) -> Result<State, Ended> {
        let mut totals = ListenerTotals {
            syns: Some(from.u64()?),
            syn_drops_accept_queue: Some(from.u64()?),
            syn_drops_syn_queue: Some(from.u64()?),
            syn_drops_max_syn_backlog: Some(from.u64()?),
            syn_drops_no_route: Some(from.u64()?),
            cookies_sent: Some(from.u64()?),
            retransmits_timer: Some(from.u64()?),
            retransmits_duplicate_syn: Some(from.u64()?),
            expired: Some(from.u64()?),
            resets: Some(from.u64()?),
            aborts: Some(from.u64()?),
            icmp_ends: Some(from.u64()?),
            joins: Some(from.u64()?),
            deferred: Some(from.u64()?),
            cookies_accepted: Some(from.u64()?),
            cookies_valid: Some(from.u64()?),
            cookies_invalid: Some(from.u64()?),
            fast_opens: Some(from.u64()?),
            orphans: Some(from.u64()?),
            cookies_dropped: Some(from.u64()?),
            cookies_dropped_at_limit: Some(from.u64()?),
            cookies_at_limit: Some(from.u64()?),
            ack_drops_accept_queue: Some(from.u64()?),
            ack_drops_other: Some(from.u64()?),
            enqueued: Some(from.u64()?),
            accepted: Some(from.u64()?),
            wait_total_ns: Some(from.u64()?),
            waits: Some(from.u64()?),
            wait_max_ns: Some(from.u64()?),
            last_accept: self.clock.wall_unless_zero(from.u64()?),
            last_enqueue: self.clock.wall_unless_zero(from.u64()?),
            last_retransmit: self.clock.wall_unless_zero(from.u64()?),
            depth_max: Some(from.u32()?),
            ..ListenerTotals::default()
        };
        let depth = from.u32()?;
        let limit = from.u32()?;
        let tid = from.u32()?;
        let pid = from.u32()?;
        totals.last_acceptor = acceptor(pid, tid);
        totals.syn_queue_max = Some(from.u32()?);
        let state = State { totals, depth, limit, endpoints: read_endpoints(from)?, inode: from.u64()? };
        // What the kernel side needs to report each accepting thread once.
        from.skip::<{ ACCEPTOR_SLOTS * 8 }>()?;
        Ok(state)
    }
}

pub(super) fn syn(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    let syn = Syn {
        endpoints: read_endpoints(from)?,
        listener: listener_ref(from)?,
        answer: match from.u32()? {
            record::SYN_COOKIE => SynAnswer::Cookie,
            record::SYN_FAST_OPEN => SynAnswer::FastOpen,
            _ => SynAnswer::Request,
        },
    };
    from.skip::<4>()?;
    Ok(Kind::Syn(syn))
}

pub(super) fn no_listener(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    Ok(Kind::NoListener(NoListener { endpoints: read_endpoints(from)?, total: from.u64()? }))
}

pub(super) fn accept_fail(from: &mut Cursor<'_>) -> Result<Kind, Ended> {
    let endpoints = read_endpoints(from)?;
    let listener = listener_ref(from)?;
    let task = task(from)?;
    let errno = from.u32()?;
    from.skip::<4>()?;
    let limit = from.u64()?;
    Ok(Kind::AcceptFail(Box::new(AcceptFail {
        endpoints,
        listener,
        task,
        errno,
        open_files_limit: (limit != record::LIMIT_UNKNOWN).then_some(limit),
        total: from.u64()?,
        accepted: from.u64()?,
        host_files_limit: None,
        host_files: None,
    })))
}

fn acceptor(pid: u32, tid: u32) -> Option<Acceptor> {
    (pid != 0).then_some(Acceptor { pid, tid })
}
