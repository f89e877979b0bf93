//! Records of listeners, their queues and their half-open requests.

use tcptrace_common::{listener::ListenerState, record, wire};

use super::parts::{age, endpoints, exiting, listener_ref, options, task};
use crate::event::{
    Accept, AcceptFail, Acceptor, AckDrop, AckDropCause, ClockOffset, Enqueue, EnqueuedBy, Kind, Listen,
    ListenerClosed, ListenerTotals, NoListener, RequestEnd, RequestEnding, RetransmitCause, Syn,
    SynAckRetransmit, SynAnswer, SynDrop, SynDropCause,
};

pub(super) fn listen(from: &record::Listen) -> Kind {
    Kind::Listen(Box::new(Listen {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        task: task(&from.task),
        backlog: (from.flags & record::LISTEN_BACKLOG_SEEN != 0).then_some(from.backlog),
        somaxconn: (from.somaxconn != 0).then_some(from.somaxconn),
        options: options(from.options),
        again: from.flags & record::LISTEN_AGAIN != 0,
    }))
}

pub(super) fn syn(from: &record::Syn) -> Kind {
    Kind::Syn(Syn {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        answer: match from.answer {
            record::SYN_COOKIE => SynAnswer::Cookie,
            record::SYN_FAST_OPEN => SynAnswer::FastOpen,
            _ => SynAnswer::Request,
        },
    })
}

pub(super) fn syn_drop(from: &record::SynDrop) -> Kind {
    Kind::SynDrop(SynDrop {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        cause: match from.cause {
            record::SYN_DROP_ACCEPT_QUEUE => SynDropCause::AcceptQueue,
            record::SYN_DROP_SYN_QUEUE => SynDropCause::SynQueue,
            record::SYN_DROP_MAX_SYN_BACKLOG => SynDropCause::MaxSynBacklog,
            record::SYN_DROP_NO_ROUTE => SynDropCause::NoRoute,
            _ => SynDropCause::Other,
        },
        syncookies: from.syncookies,
        total: from.total,
    })
}

pub(super) fn ack_drop(from: &record::AckDrop) -> Kind {
    Kind::AckDrop(AckDrop {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        cause: match from.cause {
            record::ACK_DROP_ACCEPT_QUEUE => AckDropCause::AcceptQueue,
            _ => AckDropCause::Other,
        },
        total: from.total,
    })
}

pub(super) fn synack_retransmit(from: &record::SynAckRetransmit) -> Kind {
    Kind::SynAckRetransmit(SynAckRetransmit {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        age_ns: age(from.age_ns),
        cause: match from.cause {
            record::RETRANSMIT_DUPLICATE_SYN => RetransmitCause::DuplicateSyn,
            _ => RetransmitCause::Timer,
        },
        timeouts: from.timeouts,
        total: from.total,
        acked: from.flags & record::REQUEST_ACKED != 0,
        deferred: from.flags & record::REQUEST_DEFERRED != 0,
    })
}

pub(super) fn request_end(from: &record::RequestEnd) -> Kind {
    let how = match from.how {
        record::END_LISTENER_CLOSED => RequestEnding::ListenerClosed,
        record::END_RESET => RequestEnding::Reset,
        record::END_ABORTED => RequestEnding::Aborted,
        record::END_ICMP => RequestEnding::Icmp,
        record::END_JOINED => RequestEnding::Joined,
        _ => RequestEnding::Expired,
    };
    let [code, kind, ..] = from.icmp.to_le_bytes();
    Kind::RequestEnd(RequestEnd {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        age_ns: age(from.age_ns),
        how,
        timeouts: from.timeouts,
        total: from.total,
        acked: from.flags & record::REQUEST_ACKED != 0,
        deferred: from.flags & record::REQUEST_DEFERRED != 0,
        icmp: (how == RequestEnding::Icmp).then_some((kind, code)),
    })
}

pub(super) fn enqueue(from: &record::Enqueue) -> Kind {
    Kind::Enqueue(Enqueue {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        child: from.child,
        handshake_ns: age(from.handshake_ns),
        how: match from.how {
            record::ENQUEUE_COOKIE => EnqueuedBy::Cookie,
            record::ENQUEUE_FAST_OPEN => EnqueuedBy::FastOpen,
            _ => EnqueuedBy::Handshake,
        },
    })
}

pub(super) fn accept(from: &record::Accept) -> Kind {
    Kind::Accept(Box::new(Accept {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        task: task(&from.task),
        wait_ns: (from.wait_ns != record::WAIT_UNKNOWN).then_some(from.wait_ns),
        child: from.child,
    }))
}

pub(super) fn accept_fail(from: &record::AcceptFail) -> Kind {
    Kind::AcceptFail(Box::new(AcceptFail {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        task: task(&from.task),
        errno: from.errno,
        open_files_limit: (from.limit != record::LIMIT_UNKNOWN).then_some(from.limit),
        total: from.total,
        accepted: from.accepted,
        host_files_limit: None,
        host_files: None,
    }))
}

pub(super) fn no_listener(from: &record::NoListener) -> Kind {
    Kind::NoListener(NoListener { endpoints: endpoints(&from.endpoints), total: from.total })
}

pub(super) fn listener_closed(from: &record::ListenerClosed, clock: ClockOffset) -> Kind {
    // A listener that the kernel side kept no state of: the struct is all zero, and a listener's port never is.
    let last = (from.last.endpoints.local_port != 0).then(|| totals(&from.last, clock));
    Kind::ListenerClosed(Box::new(ListenerClosed {
        endpoints: endpoints(&from.endpoints),
        listener: listener_ref(&from.listener),
        task: task(&from.task),
        exiting: exiting(&from.task),
        by_kernel: from.task.flags & wire::TASK_KERNEL != 0,
        last,
    }))
}

/// The counts of a `ListenerState`.
pub(super) fn totals(from: &ListenerState, clock: ClockOffset) -> ListenerTotals {
    let (pid, tid) = (from.last_acceptor_tgid, from.last_acceptor_tid);
    macro_rules! totals {
        ($($(#[$doc:meta])* $count:ident,)*) => {
            ListenerTotals {
                $($count: Some(from.$count),)*
                wait_max_ns: Some(from.wait_max_ns),
                last_accept: clock.wall_unless_zero(from.last_accept_ns),
                last_enqueue: clock.wall_unless_zero(from.last_enqueue_ns),
                last_retransmit: clock.wall_unless_zero(from.last_retransmit_ns),
                depth_max: Some(from.depth_max),
                syn_queue_max: Some(from.syn_queue_max),
                last_acceptor: (pid != 0).then_some(Acceptor { pid, tid }),
                ..ListenerTotals::default()
            }
        };
    }
    tcptrace_common::listener_counters!(totals)
}
