//! Puts the kernel's functions for holding on to a CPU into the programs, before they are loaded.
//!
//! The programs call numbers that no helper has (`host-ebpf/src/preemption.rs` says why). aya knows no functions of the kernel, so their
//! calls are written into the bytes of the object here: a call of the function where it is of use and the kernel has it, else an
//! instruction that does nothing.

use whodunit_ebpf::preemption::{FUNCTIONS, ON_FUNCTIONS, ON_TRACEPOINTS};

use super::btf::Btf;

/// What holds on to a CPU on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// The ids of [`FUNCTIONS`] in the kernel's BTF; those about interrupts came later (Linux 6.14).
    functions: [Option<u32>; FUNCTIONS.len()],
    /// Whether the kernel interrupts programs on tracepoints, too.
    on_tracepoints: bool,
}

/// `BPF_JMP | BPF_CALL`, and `BPF_ALU64 | BPF_MOV | BPF_K` of register 0.
const CALL: u8 = 0x85;
const SET: u8 = 0xb7;
/// `BPF_PSEUDO_KFUNC_CALL` as the source register, the upper half of its byte.
const OF_THE_KERNEL: u8 = 2 << 4;
/// Does nothing where a call stood: what a function gave is not looked at.
const NOTHING: (u8, u8, u32) = (SET, 0, 0);

impl Holding {
    /// The functions, where the kernel has those about the CPU (Linux 6.10).
    pub(super) fn find(btf: &Btf, on_tracepoints: bool) -> Option<Holding> {
        let [forbid, allow, save, restore] = btf.functions(FUNCTIONS);
        let (forbid, allow) = (forbid?, allow?);
        let (save, restore) = save.zip(restore).unzip();
        Some(Holding { functions: [Some(forbid), Some(allow), save, restore], on_tracepoints })
    }

    /// What stands for each number of the programs on a kind of hook.
    fn calls(
        self,
        numbers: [usize; FUNCTIONS.len()],
        wanted: bool,
    ) -> [(u64, u64); FUNCTIONS.len()] {
        std::array::from_fn(|which| {
            let function = self.functions[which].filter(|_| wanted);
            let put = function.map_or(NOTHING, |id| (CALL, OF_THE_KERNEL, id));
            (instruction((CALL, 0, numbers[which] as u32)), instruction(put))
        })
    }
}

/// The object of the programs with the calls of these functions, or without any. In words, which align it as a reader of ELF wants it.
pub(super) fn with_calls(object: &[u8], holding: Option<Holding>) -> Vec<u64> {
    let holding = holding.unwrap_or(Holding { functions: [None; 4], on_tracepoints: false });
    let calls =
        [holding.calls(ON_TRACEPOINTS, holding.on_tracepoints), holding.calls(ON_FUNCTIONS, true)];
    let calls = calls.as_flattened();
    let word = |bytes: &[u8]| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        let word = u64::from_le_bytes(whole);
        let found = calls.iter().find(|(placeholder, _)| *placeholder == word);
        found.map_or(word, |(_, put)| *put).to_le()
    };
    // Instructions have eight bytes, and are aligned to that in the object.
    object.chunks(8).map(word).collect()
}

/// An instruction of this code, registers and operand, as the number that its bytes are.
fn instruction((code, registers, operand): (u8, u8, u32)) -> u64 {
    let [a, b, c, d] = operand.to_le_bytes();
    u64::from_le_bytes([code, registers, 0, 0, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::super::PROGRAMS;
    use super::*;

    const IDS: [u32; 4] = [70_001, 70_002, 70_003, 70_004];

    fn count(words: &[u64], wanted: (u8, u8, u32)) -> usize {
        words.iter().filter(|word| **word == instruction(wanted).to_le()).count()
    }

    fn calls(words: &[u64]) -> [usize; 4] {
        IDS.map(|id| count(words, (CALL, OF_THE_KERNEL, id)))
    }

    #[test]
    fn every_program_holds_on_and_lets_go() {
        let functions = IDS.map(Some);
        let with = with_calls(PROGRAMS, Some(Holding { functions, on_tracepoints: true }));
        let exact = with_calls(PROGRAMS, Some(Holding { functions, on_tracepoints: false }));
        let without = with_calls(PROGRAMS, None);
        let [held, let_go, saved, restored] = calls(&with);
        let [held_exact, let_go_exact, ..] = calls(&exact);
        assert!(held_exact >= 8 && held >= held_exact + 15, "{held_exact} of {held}");
        // A program with several ends may let go at each, and then without interrupts.
        assert!(let_go >= held && let_go_exact >= held_exact, "{let_go} of {held}");
        assert_eq!([saved, restored], [let_go; 2]);
        let changed = with.iter().zip(&without).filter(|(one, other)| one != other).count();
        assert_eq!(changed, held + let_go + saved + restored);
        assert_eq!(calls(&without), [0; 4]);
        for number in ON_TRACEPOINTS.into_iter().chain(ON_FUNCTIONS) {
            assert_eq!(count(&without, (CALL, 0, number as u32)), 0);
        }
        assert_eq!(with.as_bytes().len(), PROGRAMS.len().next_multiple_of(8));
    }

    #[test]
    fn where_nothing_is_said_about_interrupts_the_cpu_is_held_all_the_same() {
        let functions = [Some(IDS[0]), Some(IDS[1]), None, None];
        let with = with_calls(PROGRAMS, Some(Holding { functions, on_tracepoints: false }));
        let [held, let_go, saved, restored] = calls(&with);
        assert!(held >= 8 && let_go >= held, "{held} {let_go}");
        assert_eq!([saved, restored], [0; 2]);
    }

    #[test]
    fn nothing_else_is_touched() {
        let object: Vec<u8> = (0..=255).cycle().take(1_003).collect();
        let same = with_calls(&object, None);
        assert_eq!(&same.as_bytes()[..object.len()], object);
    }
}
