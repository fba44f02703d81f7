"""The form of a context in words (punctuation, position, case, word class): what word vectors of its words cannot say.

Fixed rules that look at no label and no activation. Half the features of a small SAE fire on a form ("curly apostrophes", "second
token of a text"), and a label that says so can only be checked against such a description.
"""

from __future__ import annotations

from functools import lru_cache

from workbench.labeling.evidence import Context
from workbench.labeling.words import peak_word, words_of

_CLASSES = {
    "determiner article": "the a an this that these those",
    "preposition": "of in on at by for from with about into over after before between through during against under without "
    "within toward towards among to as than",
    "conjunction connective": "and or but nor so yet because if although though while whereas unless",
    "pronoun": "i me my mine we us our you your he him his she her it its they them their who whom",
    "auxiliary verb modal": "is are was were be been being am have has had do does did can could will would shall should may "
    "might must",
    "negation negative denial": "not no never none nothing",
    "question interrogative": "what which who whom whose when where why how",
}
_WORD_CLASS = {
    word: " ".join(name for name, members in _CLASSES.items() if word in members.split())
    for members in _CLASSES.values()
    for word in members.split()
}
_FUNCTION = "function word"
_ENDINGS = {
    "adverb": ("ly",),
    "verb gerund": ("ing",),
    "verb past": ("ed",),
    "noun abstract": ("tion", "ment", "ness", "ity", "ism"),
    "adjective": ("ous", "ful", "ive", "able", "al", "ic", "less"),
    "noun plural": ("s",),
}
_MARKS = {
    ".": "full stop period sentence end", ",": "comma clause list", ":": "colon", ";": "semicolon", "!": "exclamation emphatic",
    "?": "question", '"': "quotation quote speech", "“": "quotation quote opening speech", "”": "quotation quote closing speech",
    "'": "apostrophe quote contraction", "’": "apostrophe curly contraction quote", "(": "bracket parenthesis opening",
    ")": "bracket parenthesis closing", "-": "hyphen dash compound", "–": "dash", "—": "dash", "/": "slash",
    "*": "asterisk bullet list markup", "#": "hash heading markup", "_": "underscore code", "{": "brace code", "}": "brace code",
    "<": "tag markup code", ">": "tag markup code", "=": "equals code", "$": "dollar money currency", "%": "percent number",
}  # fmt: skip
_PLACES = (
    "space blank newline line break punctuation mark symbol fragment piece inside subword suffix prefix number "
    "digit numeral count date alphanumeric capital all-caps acronym abbreviation capitalised sentence beginning "
    "opening proper name foreign garbled character start text early first second token quoted speech quotation "
    "dialogue heading repeated repetition duplicate contraction apostrophe"
)
#: Words of the descriptions that labels also use for other things.
_AMBIGUOUS = "word function in clause action past title"


def form_of(context: Context) -> str:
    """The form of the marked token and its place, in words of a fixed vocabulary."""
    token, before = context.tokens[context.peak], "".join(context.tokens[: context.peak])
    said = token.strip()
    if not said:
        found = ["space blank", "newline line break"] if "\n" in token else ["space blank"]
    elif not any(letter.isalnum() for letter in said):
        found = ["punctuation mark symbol", *(_MARKS[mark] for mark in dict.fromkeys(said) if mark in _MARKS)]
    else:
        found = [*_word_form(context, said, before), *_class_of(peak_word(context))]
    return " ".join((*found, *_place(context, said, before)))


def _word_form(context: Context, said: str, before: str) -> list[str]:
    following = context.tokens[context.peak + 1 : context.peak + 2]
    glued = before[-1:].isalpha() and context.tokens[context.peak][:1].isalpha()
    found = []
    if glued:
        found.append("fragment piece inside subword suffix")
    elif following and following[0][:1].isalpha():
        found.append("fragment piece subword prefix")
    if said.isdigit():
        found.append("number digit numeral count date")
    elif any(letter.isdigit() for letter in said):
        found.append("number alphanumeric")
    if said.isupper() and len(said) > 1:
        found.append("capital all-caps acronym abbreviation")
    elif said[:1].isupper() and not glued:
        begins = not before.strip() or before.rstrip(" ")[-1:] in '.!?:"“\n'
        found.append("capitalised sentence beginning opening" if begins else "capitalised proper name")
    if any(ord(letter) > 0x250 for letter in said):
        found.append("foreign garbled character")
    return found


def _class_of(word: str) -> list[str]:
    found = ["contraction apostrophe"] if "'" in word else []
    if word in _WORD_CLASS:
        return [*found, _FUNCTION, _WORD_CLASS[word]]
    endings = (name for name, known in _ENDINGS.items() if len(word) > 3 and word.endswith(known))
    return [*found, *list(endings)[:1]]


def _place(context: Context, said: str, before: str) -> list[str]:
    found = []
    if 0 <= context.position <= 6:
        found.append("start text beginning early opening" + (" first second token" if context.position <= 2 else ""))
    if before.count('"') % 2 == 1 or before.count("“") > before.count("”"):
        found.append("quoted speech quotation dialogue")
    if "\n" in before[-2:]:
        found.append("line heading")
    earlier = {token.strip().lower() for token in context.tokens[: context.peak]}
    if len(said) > 2 and said.lower() in earlier:
        found.append("repeated repetition duplicate")
    return found


def form_words(text: str) -> frozenset[str]:
    """The words of a label that are about form, without their endings."""
    return _stems(text) & _vocabulary()


@lru_cache(maxsize=100_000)
def forms_of(context: Context) -> frozenset[str]:
    """The description of `form_of` as a set of words without their endings."""
    return _stems(form_of(context))


@lru_cache(maxsize=1)
def _vocabulary() -> frozenset[str]:
    return _stems(" ".join((_PLACES, *_CLASSES, *_ENDINGS, *_MARKS.values()))) - _stems(_AMBIGUOUS)


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(_stem, words_of(text)))


def _stem(word: str) -> str:
    for ending in ("ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
