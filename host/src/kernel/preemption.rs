//! Puts the kernel's functions for holding on to a CPU into the programs, before they are loaded.
//!
//! The programs call numbers that no helper has (`host-ebpf/src/preemption.rs` says why). aya knows no functions of the kernel, so their
//! calls are written into the bytes of the object here: a call of the function where the kernel has it, else an
//! instruction that does nothing.

use whodunit_ebpf::preemption::{ALLOW, FORBID};

use super::btf::Btf;

/// The ids that the two functions have in the kernel's BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    forbid: u32,
    allow: u32,
}

/// `BPF_JMP | BPF_CALL`, and `BPF_ALU64 | BPF_MOV | BPF_K` of register 0.
const CALL: u8 = 0x85;
const SET: u8 = 0xb7;
/// `BPF_PSEUDO_KFUNC_CALL` as the source register, the upper half of its byte.
const OF_THE_KERNEL: u8 = 2 << 4;

impl Holding {
    /// The functions, where the kernel has both (Linux 6.10).
    pub(super) fn find(btf: &Btf) -> Option<Holding> {
        let [forbid, allow] = btf.functions(["bpf_preempt_disable", "bpf_preempt_enable"]);
        Some(Holding { forbid: forbid?, allow: allow? })
    }
}

/// The object of the programs with the calls of these functions, or without any. In words, which align it as a reader of ELF wants it.
pub(super) fn with_calls(object: &[u8], holding: Option<Holding>) -> Vec<u64> {
    let placeholders = [FORBID, ALLOW].map(|number| instruction(CALL, 0, number as u32));
    let functions = match holding {
        Some(Holding { forbid, allow }) => {
            [forbid, allow].map(|id| instruction(CALL, OF_THE_KERNEL, id))
        }
        None => [instruction(SET, 0, 0); 2],
    };
    let word = |bytes: &[u8]| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        let word = u64::from_le_bytes(whole);
        let which = placeholders.iter().position(|placeholder| *placeholder == word);
        which.map_or(word, |which| functions[which]).to_le()
    };
    // Instructions have eight bytes, and are aligned to that in the object.
    object.chunks(8).map(word).collect()
}

/// An instruction, as the number that its bytes are.
fn instruction(code: u8, registers: u8, operand: u32) -> u64 {
    let [a, b, c, d] = operand.to_le_bytes();
    u64::from_le_bytes([code, registers, 0, 0, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::super::PROGRAMS;
    use super::*;

    fn count(words: &[u64], wanted: u64) -> usize {
        words.iter().filter(|word| **word == wanted.to_le()).count()
    }

    #[test]
    fn every_program_holds_on_and_lets_go() {
        let holding = Holding { forbid: 70_001, allow: 70_002 };
        let with = with_calls(PROGRAMS, Some(holding));
        let without = with_calls(PROGRAMS, None);
        let held = count(&with, instruction(CALL, OF_THE_KERNEL, 70_001));
        let let_go = count(&with, instruction(CALL, OF_THE_KERNEL, 70_002));
        assert!(held >= 15, "{held}");
        // A program with several ends may let go at each.
        assert!(let_go >= held, "{let_go} of {held}");
        let changed = with.iter().zip(&without).filter(|(one, other)| one != other).count();
        assert_eq!(changed, held + let_go);
        assert_eq!(count(&without, instruction(CALL, OF_THE_KERNEL, 70_001)), 0);
        for number in [FORBID, ALLOW] {
            assert_eq!(count(&without, instruction(CALL, 0, number as u32)), 0);
        }
        assert_eq!(with.as_bytes().len(), PROGRAMS.len().next_multiple_of(8));
    }

    #[test]
    fn nothing_else_is_touched() {
        let object: Vec<u8> = (0..=255).cycle().take(1_003).collect();
        let same = with_calls(&object, None);
        assert_eq!(&same.as_bytes()[..object.len()], object);
    }
}
