//! Half-open requests by remote network: whose SYN-ACKs stay unanswered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::event::{RequestEnd, RequestEnding, SynAckRetransmit, Timestamp};

use super::series::Series;

/// So many networks are followed; the rest is counted.
const NETWORKS: usize = 1_000;

/// A remote network.
#[derive(Clone, Debug)]
pub struct NetworkReport {
    /// `192.0.2.0/24`.
    pub network: String,
    /// SYN-ACKs sent again to it.
    pub retransmits: u64,
    /// Requests that expired; `None` where ends of requests are not seen.
    pub expired: Option<u64>,
    /// SYN-ACKs sent again over time.
    pub series: Series,
}

/// Networks as SYN-ACKs are sent again.
#[derive(Default)]
pub(super) struct Networks {
    by_prefix: BTreeMap<(IpAddr, u8), NetworkReport>,
    untold: u64,
}

impl Networks {
    pub(super) fn again(&mut self, time: Timestamp, start: Timestamp, again: &SynAckRetransmit) {
        if let Some(of) = again.endpoints.remote.and_then(|remote| self.network(start, remote.ip())) {
            of.retransmits += 1;
            let bin = of.series.at(time);
            bin.level = Some(bin.level.unwrap_or(0) + 1);
        }
    }

    pub(super) fn ended(&mut self, start: Timestamp, end: &RequestEnd) {
        if end.how == RequestEnding::Expired
            && let Some(of) = end.endpoints.remote.and_then(|remote| self.network(start, remote.ip()))
        {
            *of.expired.get_or_insert(0) += 1;
        }
    }

    fn network(&mut self, start: Timestamp, address: IpAddr) -> Option<&mut NetworkReport> {
        let (network, bits) = match address.to_canonical() {
            IpAddr::V4(of) => (IpAddr::V4((of.to_bits() & !0xff).into()), 24),
            IpAddr::V6(of) => (IpAddr::V6((of.to_bits() >> 64 << 64).into()), 64),
        };
        if self.by_prefix.len() >= NETWORKS && !self.by_prefix.contains_key(&(network, bits)) {
            self.untold += 1;
            return None;
        }
        Some(self.by_prefix.entry((network, bits)).or_insert_with(|| NetworkReport {
            network: format!("{network}/{bits}"),
            retransmits: 0,
            expired: None,
            series: Series::new(start),
        }))
    }

    /// The worst first; and how many were too many to follow. `sees_ends`: that none expired is known, too.
    pub(super) fn finish(self, sees_ends: bool) -> (Vec<NetworkReport>, u64) {
        let mut networks: Vec<NetworkReport> = self.by_prefix.into_values().collect();
        if sees_ends {
            networks.iter_mut().for_each(|of| of.expired = of.expired.or(Some(0)));
        }
        networks.sort_by(|a, b| b.retransmits.cmp(&a.retransmits).then(a.network.cmp(&b.network)));
        (networks, self.untold)
    }
}
