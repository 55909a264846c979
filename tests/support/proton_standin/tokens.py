"""A statement cut into words, and a reader that walks over them.

Comments fall away. Every token keeps the space before it, so that what is not changed is given on as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from support.proton_standin.refusals import SYNTAX_ERROR, Refused

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<string>  '(?: \\. | '' | [^'\\] )*' )
    | (?P<quoted>  `(?: \\. | [^`\\] )*` | "(?: \\. | [^"\\] )*" )
    | (?P<word>    [A-Za-z_]\w* )
    | (?P<number>  \d[\w.]* )
    | (?P<space>   \s+ )
    | (?P<symbol>  :: | -> | [<>!=]= | <> | \|\| | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Token:
    """One word, string, number or symbol."""

    kind: str
    text: str
    space: str = ""

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these keywords, in whatever case."""
        return self.kind == "word" and self.text.upper() in words

    @property
    def is_name(self) -> bool:
        """Whether it can name a stream or a column."""
        return self.kind in ("word", "quoted")

    @property
    def name(self) -> str:
        """What it names, without quotes."""
        return self.text[1:-1] if self.kind == "quoted" else self.text


END = Token("end", "")


def cut(sql: str) -> list[Token]:
    """Cut a statement; a closing semicolon falls away."""
    tokens: list[Token] = []
    space = ""
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "symbol"
        if kind in ("space", "comment"):
            space = " "
        else:
            tokens.append(Token(kind, match[0], space))
            space = ""
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    return tokens


def render(tokens: Iterable[Token]) -> str:
    """The text again."""
    return "".join(token.space + token.text for token in tokens)


def written(text: str, like: Token) -> Token:
    """A piece of finished text in the place of a token."""
    return replace(like, kind="text", text=text)


class Reader:
    """Walks over tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token to come, or END."""
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else END

    def next(self) -> Token:
        """Take one token."""
        token = self.peek()
        self._at += 1
        return token

    def accept(self, *words: str) -> bool:
        """Take these keywords if they all come next."""
        if all(self.peek(ahead).is_word(word) for ahead, word in enumerate(words)):
            self._at += len(words)
            return True
        return False

    def expect(self, text: str) -> None:
        """Take this word or symbol, or refuse the statement."""
        if self.peek().text.upper() != text:
            raise self.syntax_error()
        self.next()

    def syntax_error(self) -> Refused:
        """As Proton words it."""
        token = self.peek()
        where = "end of query" if token is END else f"'{token.text}'"
        return Refused(SYNTAX_ERROR, f"Syntax error: failed at position {self._at + 1} ({where})")

    def dotted_name(self) -> tuple[str, ...]:
        """Take `name` or `database.name`."""
        parts = []
        while self.peek().is_name:
            parts.append(self.next().name)
            if self.peek().text != ".":
                return tuple(parts)
            self.next()
        raise self.syntax_error()

    def in_parentheses(self) -> list[Token]:
        """Take a pair of parentheses and give what stands between them."""
        if self.peek().text != "(":
            raise self.syntax_error()
        inner: list[Token] = []
        depth = 0
        while (token := self.next()) is not END:
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
            if depth == 0:
                return inner[1:]
            inner.append(token)
        raise Refused(SYNTAX_ERROR, "Syntax error: unmatched parentheses")

    def until(self, *words: str) -> list[Token]:
        """Take everything up to one of these keywords outside of parentheses, or to the end."""
        taken, depth = [], 0
        while (token := self.peek()) is not END:
            if depth == 0 and token.is_word(*words):
                break
            depth += (token.text in _OPENING) - (token.text in _CLOSING)
            taken.append(self.next())
        return taken


def split(tokens: list[Token]) -> list[list[Token]]:
    """Split at the commas outside of parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]
