//! Text as LaTeX.

use crate::format::lowered;

/// Text that LaTeX typesets as it is. A character that pdflatex lacks becomes `?`.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if let Some(letter) = lowered(character) {
            escaped += &format!("\\textsuperscript{{{letter}}}");
            continue;
        }
        let replacement = match character {
            '\\' => "\\textbackslash{}",
            '~' => "\\textasciitilde{}",
            '^' => "\\textasciicircum{}",
            '<' => "\\textless{}",
            '>' => "\\textgreater{}",
            '|' => "\\textbar{}",
            '"' => "\\textquotedbl{}",
            '\'' => "'",
            '`' => "\\textasciigrave{}",
            '&' => "\\&",
            '%' => "\\%",
            '$' => "\\$",
            '#' => "\\#",
            '_' => "\\_",
            '{' => "\\{",
            '}' => "\\}",
            '—' => "---",
            '–' => "--",
            '…' => "\\dots{}",
            '“' => "``",
            '”' => "''",
            '−' => "$-$",
            '†' => "\\textsuperscript{$\\dagger$}",
            '·' => "$\\cdot$",
            '±' => "$\\pm$",
            '×' => "$\\times$",
            '≤' => "$\\le$",
            '≥' => "$\\ge$",
            '≠' => "$\\ne$",
            '∞' => "$_\\infty$",
            '₂' => "$_2$",
            'α' => "$\\alpha$",
            'β' => "$\\beta$",
            'γ' => "$\\gamma$",
            'δ' => "$\\delta$",
            'ε' => "$\\varepsilon$",
            'κ' => "$\\kappa$",
            'λ' => "$\\lambda$",
            'μ' => "$\\mu$",
            'σ' => "$\\sigma$",
            '\n' | '\r' | '\t' => " ",
            ' '..='~' | 'À'..='ſ' => {
                escaped.push(character);
                continue;
            }
            _ => "?",
        };
        escaped.push_str(replacement);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_a_command() {
        assert_eq!(
            escape(r"a_b & 50% {x} \y #1 $2"),
            r"a\_b \& 50\% \{x\} \textbackslash{}y \#1 \$2"
        );
        assert_eq!(
            escape("CW∞, ε ± 1 — 中é †"),
            "CW$_\\infty$, $\\varepsilon$ $\\pm$ 1 --- ?é \\textsuperscript{$\\dagger$}"
        );
    }
}
