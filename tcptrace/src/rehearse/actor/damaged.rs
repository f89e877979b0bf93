//! SYNs whose checksum is wrong, as a bad cable or a device that does not fill it in makes them.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use super::crowd;
use super::frame::{SYN, Segment};
use super::order::{Damaged, Place};
use super::packets::Packets;

/// Where their senders are: nobody else is there.
const PLACE: Place = Place::Prefix(9);

/// Sends them; the number sent.
pub(super) fn send(order: &Damaged) -> io::Result<u64> {
    let ipv6 = order.to.is_ipv6();
    let line = Packets::open(ipv6)?;
    for number in 0..order.syns {
        let index = usize::try_from(number).unwrap_or_default();
        let from = SocketAddr::new(crowd::address(PLACE, index, ipv6), 40_000);
        let syn = Segment { from, to: order.to, sequence: 1, acknowledgement: 0, flags: SYN, data: &[] };
        let mut packet = syn.packet();
        spoil(&mut packet, ipv6);
        line.send(&packet)?;
        sleep(Duration::from_millis(order.every_ms));
    }
    Ok(order.syns)
}

/// Makes the checksum of the segment in an IP packet wrong.
fn spoil(packet: &mut [u8], ipv6: bool) {
    const CHECKSUM: usize = 16;
    let at = CHECKSUM + if ipv6 { 40 } else { 20 };
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= 0x55;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_the_checksum_is_changed() {
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let [from, to]: [SocketAddr; 2] = [from.parse().unwrap(), to.parse().unwrap()];
            let right = Segment { from, to, sequence: 1, acknowledgement: 0, flags: SYN, data: &[] }.packet();
            let mut wrong = right.clone();
            spoil(&mut wrong, to.is_ipv6());
            let changed: Vec<usize> = (0..right.len()).filter(|&at| right[at] != wrong[at]).collect();
            assert_eq!(changed, [if to.is_ipv6() { 56 } else { 36 }]);
        }
    }
}
