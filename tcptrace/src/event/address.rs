//! Kernel addresses do not leave the host: a number of the same use stands for each.
//!
//! An address in kernel memory tells an attacker where the kernel's objects and its code are. People attach recordings and JSON lines to
//! public issues, so [`Kind::hide_addresses`] replaces every address in an event before anything but the live source sees it. The
//! number that replaces it is made with a random key that is kept in memory alone: the same address gives the same number for as
//! long as the key lives, which is one trace and all parts of its recording, and no address can be found from it.

use std::hash::{BuildHasher as _, RandomState};

use super::{Accept, Enqueue, HandshakeDrop, Kind, PrefixSample};

/// Kernel memory: addresses from here on, on x86-64 and arm64, whatever the size of their page tables. Smaller numbers in an
/// address's place are none: 0 for unknown, a namespace and port in the tracepoint tier, a number that was hidden before.
const KERNEL: u64 = 1 << 63;

/// A number that stands for an address has this bit and none above it: it is no other such number (which are below 2^48), not 0,
/// and programs that read JSON numbers as doubles keep all of it.
const HIDDEN: u64 = 1 << 52;

/// The key of one trace.
#[derive(Clone, Debug, Default)]
pub struct AddressKey(RandomState);

impl AddressKey {
    /// What stands for `address`.
    pub fn hide(&self, address: u64) -> u64 {
        if address < KERNEL { address } else { HIDDEN | self.0.hash_one(address) & (HIDDEN - 1) }
    }
}

impl Kind {
    /// Replaces every address of the kernel's memory. Doing so again changes nothing.
    pub fn hide_addresses(&mut self, key: &AddressKey) {
        // Without `_`: a new kind of event must say which addresses it has.
        match self {
            Self::Listen(of) => hide(key, [&mut of.listener.sk]),
            Self::Syn(of) => hide(key, [&mut of.listener.sk]),
            Self::SynDrop(of) => hide(key, [&mut of.listener.sk]),
            Self::AckDrop(of) => hide(key, [&mut of.listener.sk]),
            Self::AcceptFail(of) => hide(key, [&mut of.listener.sk]),
            Self::ListenerClosed(of) => hide(key, [&mut of.listener.sk]),
            Self::SynAckRetransmit(of) => hide(key, [&mut of.listener.sk]),
            Self::RequestEnd(of) => hide(key, [&mut of.listener.sk]),
            Self::ListenerSample(of) => hide(key, [&mut of.listener.sk]),
            Self::Enqueue(Enqueue { listener, child, .. }) => hide(key, [&mut listener.sk, child]),
            Self::Accept(of) => {
                let Accept { listener, child, .. } = &mut **of;
                hide(key, [&mut listener.sk, child]);
            }
            Self::BindFail(of) => {
                hide(key, [&mut of.sk]);
                for holder in &mut of.holders {
                    hide(key, [&mut holder.sk]);
                }
            }
            Self::PortTaken(of) => hide(key, [&mut of.sk]),
            Self::PortReleased(of) => hide(key, [&mut of.sk]),
            Self::Connect(of) => hide(key, [&mut of.sk]),
            Self::NoPort(of) => hide(key, [&mut of.sk]),
            Self::PrefixSample(PrefixSample { sk, .. }) => hide(key, [sk]),
            Self::SocketOwner(of) => hide(key, [&mut of.sk]),
            Self::HandshakeDrop(of) => {
                let HandshakeDrop { location, input, .. } = &mut **of;
                hide(key, [location, input]);
            }
            Self::ConnectSample(_)
            | Self::NoListener(_)
            | Self::ListenerReport(_)
            | Self::CounterSample(_)
            | Self::KnobSample(_)
            | Self::Device(_)
            | Self::ProcessInfo(_)
            | Self::ProcessState(_)
            | Self::HolderReport(_)
            | Self::PortUse(_)
            | Self::PortSurvey(_)
            | Self::Coverage(_)
            | Self::Lost(_)
            | Self::Tick
            | Self::End => {}
        }
    }
}

fn hide<const N: usize>(key: &AddressKey, addresses: [&mut u64; N]) {
    for address in addresses {
        *address = key.hide(*address);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::record::tests::any_kind;

    /// Members of events that hold addresses.
    const ADDRESSES: [&str; 4] = ["sk", "child", "location", "input"];

    #[test]
    fn an_address_has_one_number_for_each_key_and_no_other_has_it() {
        let (key, other) = (AddressKey::default(), AddressKey::default());
        let sockets = (0..10_000_u64).map(|number| 0xffff_8881_0000_0000 + 64 * number);
        let mut numbers: Vec<u64> = sockets.clone().map(|address| key.hide(address)).collect();
        assert!(sockets.clone().all(|address| key.hide(address) == key.clone().hide(address)));
        assert!(sockets.clone().all(|address| key.hide(address) != other.hide(address)));
        assert!(numbers.iter().all(|number| (HIDDEN..2 * HIDDEN).contains(number)));
        numbers.sort_unstable();
        assert!(!numbers.is_sorted_by(|a, b| b - a == 64), "it only moves them");
        numbers.dedup();
        assert_eq!(numbers.len(), 10_000);
    }

    #[test]
    fn what_is_no_address_stays() {
        let key = AddressKey::default();
        // Unknown; namespace 4026531840, port 80; hidden before.
        for number in [0, 4_026_531_840 << 16 | 80, key.hide(0xff11_0001_0234_5678), KERNEL - 1] {
            assert_eq!(key.hide(number), number);
        }
    }

    /// `value`, with `each` done to every number that is an address.
    fn addresses(value: &mut Value, each: &mut impl FnMut(&mut Value)) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if ADDRESSES.contains(&name.as_str()) && member.is_u64() {
                        each(member)
                    } else {
                        addresses(member, each)
                    }
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(|element| addresses(element, each)),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn events_of_every_kind_are_the_same_but_for_their_addresses(before in any_kind(), high: bool) {
            let mut before = serde_json::to_value(&before).unwrap();
            addresses(&mut before, &mut |number| {
                *number = (number.as_u64().unwrap() & (KERNEL - 1) | if high { KERNEL } else { 0 }).into();
            });
            let key = AddressKey::default();
            let mut kind: Kind = serde_json::from_value(before.clone()).unwrap();
            kind.hide_addresses(&key);
            addresses(&mut before, &mut |number| *number = key.hide(number.as_u64().unwrap()).into());
            prop_assert_eq!(serde_json::to_value(&kind).unwrap(), before);
            let once = kind.clone();
            kind.hide_addresses(&key);
            prop_assert_eq!(kind, once);
        }
    }
}
