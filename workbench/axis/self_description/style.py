"""Plain counts of a theatrical manner: exclamation marks, words out of old plays, and a life that is told in the first person."""

from __future__ import annotations

import re

ARCHAIC = frozenset(
    ("thou", "thee", "thy", "thine", "ye", "hath", "doth", "dost", "hast", "hither", "thither", "whither", "yonder",
     "alas", "behold", "verily", "forsooth", "aye", "nay", "ere", "oft", "twas", "tis", "wherefore", "henceforth",
     "hark", "methinks", "anon", "betwixt", "beseech", "lo", "ol", "matey", "ahoy", "arr", "hearken", "unto")
)  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?")
_BACKSTORY = re.compile(
    r"\bi (?:was (?:born|raised)|grew up"
    r"|(?:have |had )?(?:wandered|sailed|fought|travell?ed|lived|served|spent (?:my|\w+ years)))\b"
    r"|\bwhen i was (?:a |young|small|\w+teen|\w+ty)|\b(?:years|winters|centuries|ages) (?:ago|past)\b.{0,40}\bi\b"
    r"|\bmy (?:mother|father|childhood|village|homeland|kingdom|crew|ship)\b",
    re.IGNORECASE,
)
MEASURES = ("exclamations", "archaic", "backstory")


def style(answer: str) -> dict[str, float]:
    """{exclamations: "!" per sentence, archaic: words of ARCHAIC per 100, backstory: 1 where a first-person past is told}."""
    words = [word.lower() for word in _WORD.findall(answer)]
    sentences = max(1, len(re.findall(r"[.!?]+", answer)))
    archaic = 100 * sum(word in ARCHAIC for word in words) / max(1, len(words))
    told = float(bool(_BACKSTORY.search(answer)))
    return {"exclamations": answer.count("!") / sentences, "archaic": archaic, "backstory": told}
