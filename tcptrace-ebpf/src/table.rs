//! Tables of a fixed size that need no lock and no allocation: an array map of sets of a few ways, as a processor's cache is.
//!
//! What every connection writes and takes away again lives in one. A hash map costs hundreds of instructions for each of
//! the two (its locks, its free lists); here both are a short scan. The price: a set that is full overwrites its least
//! worthy entry, and two processors that write to one way at the same moment may mix their entries, which a check word
//! tells. Both are rare, and whoever looks for such an entry finds none.

use aya_ebpf::maps::Array;

/// Ways of a set.
pub const WAYS: usize = 8;
/// Binary logarithm of the number of sets of every table.
const SETS_LOG2: u32 = 13;
/// Sets of every table.
pub const SETS: u32 = 1 << SETS_LOG2;

/// An entry. All zero is a free one.
///
/// # Safety
/// `Self` must be `repr(C)` and be valid for all-zero bytes.
pub unsafe trait Way: Copy + 'static {
    /// 0 for a free one; of the others, the least is overwritten first.
    fn worth(&self) -> u64;
}

/// The entries that share a hash.
#[repr(C)]
pub struct Set<W>([W; WAYS]);

/// The first of the ways of a `hash`, whose upper bits count; null for none, which only the verifier thinks possible.
#[inline(always)]
pub fn ways<W: Way>(table: &Array<Set<W>>, hash: u64) -> *mut W {
    match table.get_ptr_mut((hash >> (u64::BITS - SETS_LOG2)) as u32) {
        Some(set) => set.cast(),
        None => core::ptr::null_mut(),
    }
}

/// The first of these ways that `is` it; null for none.
#[inline(always)]
pub fn find<W: Way>(ways: *mut W, is: impl Fn(&W) -> bool) -> *mut W {
    // Written out, because the compiler would make a loop of it, which takes three times as long.
    macro_rules! number {
        ($($index:literal)*) => {{
            $(
                // SAFETY: `ways` is the first of as many in a map value; all bytes are valid.
                if is(unsafe { &*ways.add($index) }) { $index + 1 } else
            )* { 0 }
        }};
    }
    const _: () = assert!(WAYS == 8);
    let number = forgotten(number!(0 1 2 3 4 5 6 7));
    if number == 0 { core::ptr::null_mut() } else { way(ways, number - 1) }
}

/// The way to write a new entry to: a free one, or the one worth least.
#[inline(always)]
pub fn room<W: Way>(ways: *mut W) -> *mut W {
    let mut room = 0;
    // SAFETY: `ways` is the first way of a set in a map value; all bytes are valid.
    let mut least = unsafe { (*ways).worth() };
    for index in 1..WAYS {
        if least == 0 {
            break;
        }
        // SAFETY: as above, and a set has this many.
        let worth = unsafe { (*ways.add(index)).worth() };
        if worth < least {
            (room, least) = (index as u32, worth);
        }
    }
    way(ways, forgotten(room))
}

/// The way of this number, whatever the verifier knows of it.
#[inline(always)]
fn way<W: Way>(ways: *mut W, mut number: u32) -> *mut W {
    // A real instruction, which the compiler cannot find needless.
    // SAFETY: changes nothing, there being no more than eight.
    unsafe { core::arch::asm!("{0} &= 7", inout(reg) number, options(pure, nomem, nostack)) };
    // SAFETY: `ways` is the first of as many in a map value.
    unsafe { ways.add(number as usize) }
}

/// Zero. Whatever is in a map that is not read-only, the verifier does not know.
static mut UNKNOWN_ZERO: u64 = 0;

/// The same number, of which the verifier has forgotten how it came about: it would follow the program from here on for each
/// way of a set, and once more for each in the next search (minutes, where a bind bucket is walked).
#[inline(always)]
fn forgotten(number: u32) -> u32 {
    // SAFETY: nobody writes it; volatile, because the compiler can tell.
    number ^ unsafe { (&raw const UNKNOWN_ZERO).cast::<u32>().read_volatile() }
}

/// The same of a whole word.
#[inline(always)]
pub fn forgotten_word(word: u64) -> u64 {
    // SAFETY: as above.
    word ^ unsafe { (&raw const UNKNOWN_ZERO).read_volatile() }
}

/// Mixes a word into a hash or a check word.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The lower half of an address, as a number: the verifier refuses arithmetic with what it knows to be a pointer, but for a
/// copy of 32 bits.
#[inline(always)]
pub fn lower_half(address: u64) -> u64 {
    let half: u64;
    // SAFETY: copies a register.
    unsafe {
        core::arch::asm!("w1 = w1", inlateout("r1") address => half, options(pure, nomem, nostack));
    }
    half
}

/// A check over `words` of an entry, read from memory, where addresses too are numbers.
///
/// # Safety
/// There must be so many.
#[inline(always)]
pub unsafe fn check<const WORDS: usize>(first: *const u64) -> u64 {
    let mut check = 0;
    for index in 0..WORDS {
        // SAFETY: the caller's promise.
        let word = unsafe { first.add(index) };
        // SAFETY: as above; volatile, so that the compiler does not take what it has just written from a register.
        check = mix(check, unsafe { word.read_volatile() });
    }
    check
}
