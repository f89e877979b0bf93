//! `struct net`.

use core::marker::PhantomData;

use tcptrace_common::ABSENT;

use super::{Access, layout};

/// `struct net`.
#[derive(Clone, Copy)]
pub struct Net<A> {
    at: u64,
    access: PhantomData<A>,
}

impl<A: Access> Net<A> {
    #[inline(always)]
    pub fn at(at: u64) -> Self {
        Self { at, access: PhantomData }
    }

    #[inline(always)]
    pub fn id(self) -> u64 {
        self.at
    }

    #[inline(always)]
    pub fn inum(self) -> u32 {
        A::read(self.at, layout!(net_inum))
    }

    /// `net.ipv4.tcp_syncookies`.
    #[inline(always)]
    pub fn syncookies(self) -> u32 {
        if layout!(net_syncookies) == ABSENT {
            return 0;
        }
        // An int up to 5.12, u8 since (and in 5.10's stable series).
        if layout!(net_syncookies_size) == 1 {
            u32::from(A::read::<u8>(self.at, layout!(net_syncookies)))
        } else {
            A::read(self.at, layout!(net_syncookies))
        }
    }

    /// `net.ipv4.tcp_abort_on_overflow`.
    #[inline(always)]
    pub fn aborts_on_overflow(self) -> bool {
        layout!(net_abort_on_overflow) != ABSENT
            && A::read::<u8>(self.at, layout!(net_abort_on_overflow)) != 0
    }

    /// `net.core.somaxconn`; 0 where it cannot be read.
    #[inline(always)]
    pub fn somaxconn(self) -> u32 {
        if layout!(net_somaxconn) == ABSENT { 0 } else { A::read(self.at, layout!(net_somaxconn)) }
    }
}
