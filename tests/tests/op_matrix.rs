//! Every op on every instruction set: forward against its reference, backward against finite differences.

use manygate_graph::check::check;
use manygate_graph::ops;
use manygate_kernels::Isa;
use manygate_tests::on_all_cores;
use std::sync::Mutex;

#[test]
fn every_op_on_every_instruction_set() {
    let wrong = Mutex::new(Vec::new());
    on_all_cores(ops::cases(), |case| {
        if let Err(message) = check(case, &Isa::available()) {
            wrong.lock().unwrap().push(message);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of the cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
