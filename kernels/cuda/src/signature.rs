//! What a kernel is called with, as its PTX says.

/// Offset and size of each parameter of `kernel`, as they lie in memory; [`None`] where `ptx` has no such kernel, or
/// declares it in a way that is not understood.
pub fn parameters(ptx: &str, kernel: &str) -> Option<Vec<(usize, usize)>> {
    let declaration = ptx.split(".entry").skip(1).map(str::trim_start).find_map(|entry| {
        let rest = entry.strip_prefix(kernel)?.trim_start();
        rest.strip_prefix('(').or_else(|| rest.starts_with(['{', '.']).then_some(")"))
    })?;
    let (list, _) = declaration.split_once(')')?;
    let mut end: usize = 0;
    list.split(',')
        .filter(|parameter| !parameter.trim().is_empty())
        .map(|parameter| {
            let (size, align) = size_and_align(parameter)?;
            let offset = end.next_multiple_of(align);
            end = offset + size;
            Some((offset, size))
        })
        .collect()
}

/// Bytes and alignment of `.param .u64 name` or `.param .align 8 .b8 name[32]`.
fn size_and_align(parameter: &str) -> Option<(usize, usize)> {
    let words: Vec<&str> = parameter.split_whitespace().collect();
    let value = words.iter().find_map(|word| match *word {
        ".b8" | ".s8" | ".u8" => Some(1),
        ".b16" | ".s16" | ".u16" | ".f16" => Some(2),
        ".b32" | ".s32" | ".u32" | ".f32" => Some(4),
        ".b64" | ".s64" | ".u64" | ".f64" => Some(8),
        _ => None,
    })?;
    let count = match words.last()?.split_once('[') {
        Some((_, count)) => count.strip_suffix(']')?.parse().ok()?,
        None => 1,
    };
    // `.ptr .align` would be the alignment of what an address points to.
    let own = words.iter().take_while(|word| **word != ".ptr").position(|word| *word == ".align");
    let align = match own {
        Some(at) => words.get(at + 1)?.parse().ok().filter(|align: &usize| align.is_power_of_two())?,
        None => value,
    };
    Some((value * count, align))
}

#[cfg(test)]
mod tests {
    use super::parameters;

    const PTX: &str = "
.visible .entry scale_rows(
\t.param .align 8 .b8 scale_rows_param_0[32],
\t.param .u32 scale_rows_param_1,
\t.param .u64 .ptr .global .align 4 scale_rows_param_2,
\t.param .u16 scale_rows_param_3
)
.maxntid 256, 1, 1
{
\tret;
}
.visible .entry scale(\n\t.param .f32 scale_param_0\n)\n{\n\tret;\n}
.visible .entry nothing()\n{\n\tret;\n}
.visible .entry bare\n{\n\tret;\n}";

    #[test]
    fn parameters_lie_where_their_types_put_them() {
        assert_eq!(parameters(PTX, "scale_rows"), Some(vec![(0, 32), (32, 4), (40, 8), (48, 2)]));
        assert_eq!(parameters(PTX, "scale"), Some(vec![(0, 4)]));
    }

    #[test]
    fn a_kernel_may_have_none() {
        assert_eq!(parameters(PTX, "nothing"), Some(Vec::new()));
        assert_eq!(parameters(PTX, "bare"), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert_eq!(parameters(PTX, "sca"), None);
        assert_eq!(parameters(".entry f(.param .texref t)", "f"), None);
        assert_eq!(parameters(".entry f(.param .u32", "f"), None);
    }
}
