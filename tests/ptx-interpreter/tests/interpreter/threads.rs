//! Kernels of which each thread stores a word.

use crate::support::{download, launch, module, upload};
use manygate_ptx_interpreter::{Fault, Memory};

/// What every kernel here declares and begins with: `%r0` is the thread, `%rd0` the address of its result, `%rd1`
/// that of the words that were given.
const PROLOGUE: &str = ".reg .b64 %rd<10>;\n.reg .b32 %r<20>;\n.reg .f32 %f<20>;\n.reg .pred %p<10>;\n.reg .b16 %h<10>;
    mov.u32 %r0, %tid.x;\nld.param.u64 %rd0, [k_0];\nmad.wide.u32 %rd0, %r0, 4, %rd0;\nld.param.u64 %rd1, [k_1];\n";

/// A kernel with `body`, after `declarations` of the module.
pub(crate) fn text(declarations: &str, body: &str) -> String {
    format!(
        "{declarations}\n.visible .entry k(.param .u64 k_0, .param .u64 k_1) {{\n{PROLOGUE}{body}\nret;\n}}"
    )
}

/// A word of each thread, given words at `%rd1`.
pub(crate) fn try_words(body: &str, threads: u32, given: &[u32]) -> Result<Vec<u32>, Fault> {
    words_of_module(&text("", body), threads, given)
}

/// The words of a whole text.
pub(crate) fn words_of_module(text: &str, threads: u32, given: &[u32]) -> Result<Vec<u32>, Fault> {
    let mut memory = Memory::new();
    let bytes: Vec<u8> = given.iter().flat_map(|word| word.to_le_bytes()).collect();
    let input = upload(&mut memory, &bytes);
    let even = threads.next_multiple_of(2);
    let output = upload(&mut memory, &vec![0; 4 * even as usize]);
    let parameters = crate::support::bytes_of(&[output, input]);
    launch(&module(text), &mut memory, [threads, 1, 1], 0, &parameters)?;
    let pairs = download(&mut memory, output, even as usize / 2);
    let words = pairs.into_iter().flat_map(|pair| [pair as u32, (pair >> 32) as u32]);
    Ok(words.take(threads as usize).collect())
}

/// A word of each thread.
pub(crate) fn words(body: &str, threads: u32, given: &[u32]) -> Vec<u32> {
    try_words(body, threads, given).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Stores `%r1` as the thread's word.
pub(crate) const STORE: &str = "st.global.u32 [%rd0], %r1;";
