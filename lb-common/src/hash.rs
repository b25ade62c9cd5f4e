//! XXH64, a hash whose output is specified, so that nodes of any architecture and version agree
//! (xxHash fast digest algorithm, doc/xxhash_spec.md of Cyan4973/xxHash).
//!
//! Multiplications, shifts and additions of 64 bits only: no table, no division, no memory. It
//! holds no secret: whoever picks the input can pick the output.

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// XXH64 with seed 0 of `8 * N` bytes, each word being eight of them read in little-endian order.
#[inline(always)]
pub fn xxh64<const N: usize>(words: [u64; N]) -> u64 {
    let (stripes, rest) = words.as_chunks::<4>();
    let start = if stripes.is_empty() { PRIMES[4] } else { converge(stripes) };
    let length = 8 * N as u64;
    let hash = rest.iter().fold(start.wrapping_add(length), |hash, word| {
        let mixed = (hash ^ round(0, *word)).rotate_left(27);
        mixed.wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
    });
    avalanche(hash)
}

#[inline(always)]
fn converge(stripes: &[[u64; 4]]) -> u64 {
    let mut lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, PRIMES[0].wrapping_neg()];
    for stripe in stripes {
        for (lane, word) in lanes.iter_mut().zip(stripe) {
            *lane = round(*lane, *word);
        }
    }
    let [a, b, c, d] = lanes;
    let sum = a
        .rotate_left(1)
        .wrapping_add(b.rotate_left(7))
        .wrapping_add(c.rotate_left(12))
        .wrapping_add(d.rotate_left(18));
    lanes.iter().fold(sum, |hash, lane| {
        (hash ^ round(0, *lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
    })
}

#[inline(always)]
fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
}

#[inline(always)]
fn avalanche(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(PRIMES[1]);
    let hash = (hash ^ hash >> 29).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 32
}
