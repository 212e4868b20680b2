//! Every op on every instruction set: forward against its reference, backward against finite differences.

use manygate_graph::check::check;
use manygate_graph::ops;
use manygate_kernels::Isa;

#[test]
fn every_op_on_every_instruction_set() {
    let mut wrong = Vec::new();
    for case in ops::cases() {
        for isa in Isa::available() {
            if let Err(message) = check(&case, isa) {
                wrong.push(message);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of the cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
