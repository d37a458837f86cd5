//! Which characters pdflatex can set, and how.

use crate::format::lowered;

/// Symbols in mathematics, each with its command. No two look alike: letters that look like those of the Latin alphabet, such
/// as a capital alpha, are not among them.
const MATH: &[(char, &str)] = &[
    // Greek.
    ('α', "\\alpha"),
    ('β', "\\beta"),
    ('γ', "\\gamma"),
    ('δ', "\\delta"),
    ('ε', "\\varepsilon"),
    ('ϵ', "\\epsilon"),
    ('ζ', "\\zeta"),
    ('η', "\\eta"),
    ('θ', "\\theta"),
    ('ϑ', "\\vartheta"),
    ('ι', "\\iota"),
    ('κ', "\\kappa"),
    ('λ', "\\lambda"),
    ('μ', "\\mu"),
    ('ν', "\\nu"),
    ('ξ', "\\xi"),
    ('π', "\\pi"),
    ('ϖ', "\\varpi"),
    ('ρ', "\\rho"),
    ('ϱ', "\\varrho"),
    ('σ', "\\sigma"),
    ('ς', "\\varsigma"),
    ('τ', "\\tau"),
    ('υ', "\\upsilon"),
    ('φ', "\\varphi"),
    ('ϕ', "\\phi"),
    ('χ', "\\chi"),
    ('ψ', "\\psi"),
    ('ω', "\\omega"),
    ('Γ', "\\Gamma"),
    ('Δ', "\\Delta"),
    ('Θ', "\\Theta"),
    ('Λ', "\\Lambda"),
    ('Ξ', "\\Xi"),
    ('Π', "\\Pi"),
    ('Σ', "\\Sigma"),
    ('Υ', "\\Upsilon"),
    ('Φ', "\\Phi"),
    ('Ψ', "\\Psi"),
    ('Ω', "\\Omega"),
    // Raised and lowered signs.
    ('⁺', "^{+}"),
    ('⁻', "^{-}"),
    ('⁼', "^{=}"),
    ('⁽', "^{(}"),
    ('⁾', "^{)}"),
    ('₊', "_{+}"),
    ('₋', "_{-}"),
    ('₌', "_{=}"),
    ('₍', "_{(}"),
    ('₎', "_{)}"),
    ('′', "^{\\prime}"),
    ('″', "^{\\prime\\prime}"),
    ('‴', "^{\\prime\\prime\\prime}"),
    // As in L∞ and CW∞: below the line.
    ('∞', "_{\\infty}"),
    // Arrows.
    ('←', "\\leftarrow"),
    ('→', "\\rightarrow"),
    ('↑', "\\uparrow"),
    ('↓', "\\downarrow"),
    ('↔', "\\leftrightarrow"),
    ('↕', "\\updownarrow"),
    ('↖', "\\nwarrow"),
    ('↗', "\\nearrow"),
    ('↘', "\\searrow"),
    ('↙', "\\swarrow"),
    ('↦', "\\mapsto"),
    ('⇐', "\\Leftarrow"),
    ('⇒', "\\Rightarrow"),
    ('⇑', "\\Uparrow"),
    ('⇓', "\\Downarrow"),
    ('⇔', "\\Leftrightarrow"),
    // Operators and relations.
    ('−', "-"),
    ('·', "\\cdot"),
    ('±', "\\pm"),
    ('∓', "\\mp"),
    ('×', "\\times"),
    ('÷', "\\div"),
    ('∗', "\\ast"),
    ('⋆', "\\star"),
    ('∘', "\\circ"),
    ('⊕', "\\oplus"),
    ('⊖', "\\ominus"),
    ('⊗', "\\otimes"),
    ('⊙', "\\odot"),
    ('≤', "\\leq"),
    ('≥', "\\geq"),
    ('≪', "\\ll"),
    ('≫', "\\gg"),
    ('≠', "\\neq"),
    ('≡', "\\equiv"),
    ('≈', "\\approx"),
    ('≃', "\\simeq"),
    ('≅', "\\cong"),
    ('∼', "\\sim"),
    ('∝', "\\propto"),
    ('∥', "\\parallel"),
    ('⊥', "\\perp"),
    ('∈', "\\in"),
    ('∉', "\\notin"),
    ('∋', "\\ni"),
    ('⊂', "\\subset"),
    ('⊃', "\\supset"),
    ('⊆', "\\subseteq"),
    ('⊇', "\\supseteq"),
    ('∪', "\\cup"),
    ('∩', "\\cap"),
    ('∧', "\\wedge"),
    ('∨', "\\vee"),
    ('¬', "\\neg"),
    ('∀', "\\forall"),
    ('∃', "\\exists"),
    ('∅', "\\emptyset"),
    ('∇', "\\nabla"),
    ('∂', "\\partial"),
    ('∫', "\\int"),
    ('∑', "\\sum"),
    ('∏', "\\prod"),
    ('√', "\\surd"),
    ('ℓ', "\\ell"),
    ('ℏ', "\\hbar"),
    ('△', "\\triangle"),
    ('⟨', "\\langle"),
    ('⟩', "\\rangle"),
    ('⌈', "\\lceil"),
    ('⌉', "\\rceil"),
    ('⌊', "\\lfloor"),
    ('⌋', "\\rfloor"),
    ('♠', "\\spadesuit"),
    ('♣', "\\clubsuit"),
    ('♥', "\\heartsuit"),
    ('♦', "\\diamondsuit"),
    ('♯', "\\sharp"),
    ('♭', "\\flat"),
];

/// Characters of text that need a command.
const TEXT: &[(char, &str)] = &[
    ('\\', "\\textbackslash{}"),
    ('~', "\\textasciitilde{}"),
    ('^', "\\textasciicircum{}"),
    ('<', "\\textless{}"),
    ('>', "\\textgreater{}"),
    ('|', "\\textbar{}"),
    ('"', "\\textquotedbl{}"),
    ('`', "\\textasciigrave{}"),
    ('&', "\\&"),
    ('%', "\\%"),
    ('$', "\\$"),
    ('#', "\\#"),
    ('_', "\\_"),
    ('{', "\\{"),
    ('}', "\\}"),
    ('—', "\\textemdash{}"),
    ('–', "\\textendash{}"),
    ('…', "\\dots{}"),
    ('“', "\\textquotedblleft{}"),
    ('”', "\\textquotedblright{}"),
    ('’', "\\textquoteright{}"),
    ('‘', "\\textquoteleft{}"),
    ('„', "\\quotedblbase{}"),
    ('‚', "\\quotesinglbase{}"),
    ('‹', "\\guilsinglleft{}"),
    ('›', "\\guilsinglright{}"),
    ('†', "\\textsuperscript{\\ensuremath{\\dagger}}"),
    ('‡', "\\textsuperscript{\\ensuremath{\\ddagger}}"),
    ('•', "\\textbullet{}"),
    ('‰', "\\textperthousand{}"),
    ('€', "\\texteuro{}"),
    ('™', "\\texttrademark{}"),
    ('№', "\\textnumero{}"),
];

/// Raised digits and letters, each with what is raised.
const RAISED: &str = "⁰0¹1²2³3⁴4⁵5⁶6⁷7⁸8⁹9ⁿnᵒoᵖpʳrˢsᵗtᵘuᵛvʷwˣxʸyᶻzᵀT";
/// Digits and letters below the line, each with what is lowered.
const LOWERED: &str = "₀0₁1₂2₃3₄4₅5₆6₇7₈8₉9ₐaₑeₕhᵢiⱼjₖkₗlₘmₙnₒoₚpᵣrₛsₜtᵤuᵥvₓx";
/// Letters of Latin Extended-A that the encoding T1 lacks.
const LACKING: &str = "ĦħĸĿŀŉŦŧſ";

/// The source of a character, if pdflatex can set it.
pub(super) fn symbol(character: char) -> Option<String> {
    let listed = |list: &[(char, &'static str)]| list.iter().find(|(known, _)| *known == character).map(|(_, it)| *it);
    let paired = |pairs: &str| {
        pairs
            .chars()
            .zip(pairs.chars().skip(1))
            .step_by(2)
            .find(|(of, _)| *of == character)
    };
    if let Some(command) = listed(TEXT) {
        return Some(command.to_string());
    }
    if let Some(command) = listed(MATH) {
        return Some(format!("\\ensuremath{{{command}}}"));
    }
    if let Some(letter) = lowered(character).or(paired(RAISED).map(|(_, letter)| letter)) {
        return Some(format!("\\textsuperscript{{{letter}}}"));
    }
    if let Some((_, letter)) = paired(LOWERED) {
        let upright = if letter.is_ascii_digit() {
            letter.to_string()
        } else {
            format!("\\mathrm{{{letter}}}")
        };
        return Some(format!("\\ensuremath{{_{{{upright}}}}}"));
    }
    let set = match character {
        ' '..='~' => true,
        // Signs of Latin-1 that stand in the fonts; a blank that does not break and a soft hyphen cannot be seen.
        '¡'..='¬' | '®'..='ÿ' => true,
        'Ā'..='ž' => !LACKING.contains(character),
        _ => false,
    };
    set.then(|| character.to_string())
}
