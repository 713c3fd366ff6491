"""Formulas as docstrings have them, in plain text, to MathML.

A formula is a block of lines, a line has cells two or more spaces apart, and a cell is a sentence
of expressions, relations and words. An expression is written as in the docstrings: a product has no
sign, ``x[t, c]`` has subscripts, ``sum_{c != y}``, ``prod_t`` and ``max_c`` are a sum, a product
and a maximum, ``[c = y]`` is 1 or 0, ``dl/dx[c]`` a derivative. A stroke divides all of the product
before it; but one without spaces, in brackets or an exponent, stays in the line and divides the
factor before it.
"""

import re
from contextlib import contextmanager
from html import escape

GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "eps": "ε",
    "sigma": "σ",
    "pi": "π",
}
FUNCTIONS = {"log", "exp", "cosh", "tanh", "max", "sign", "softplus"}
NAMES = {*GREEK, *FUNCTIONS, "margin", "loss", "perplexity", "bits"}
RELATIONS = {"<=": "≤", ">=": "≥", "!=": "≠", "<": "&lt;", ">": "&gt;"}
RELATIONS |= {sign: sign for sign in "=,:;∈∉"}
BIG = {"sum": "∑", "prod": "∏", "max": "max"}
CLOSING = {"(": ")", "[": "]", "|": "|"}
SLASH = '<mo lspace="0" rspace="0">/</mo>'
SPACE = '<mspace width="0.17em"/>'

TOKEN = re.compile(
    r"""(?P<space>\s*)(?P<token>
        d(?P<of>[a-z])/d(?P<by>[a-z])\b
      | (?P<mantissa>\d+(?:\.\d+)?)(?:e(?P<exponent>[+-]?\d+))?
      | (?P<big>sum|prod|max)_(?:{(?P<range>[^}]*)}|(?P<index>\w))
      | (?P<word>[A-Za-z]\w*)(?P<prime>'?)
      | <=|>=|!=|\S)""",
    re.VERBOSE,
)


class Bracketed(str):
    """Something in round brackets, which a fraction or an exponent can do without."""

    inner = ""


def bare(markup):
    return markup.inner if isinstance(markup, Bracketed) else markup


def row(*parts):
    return f"<mrow>{''.join(parts)}</mrow>"


def sign(character):
    return f"<mo>{character}</mo>"


def identifier(name):
    return f"<mi>{GREEK.get(name, name)}</mi>"


def product(factors):
    return factors[0] if len(factors) == 1 else row(SPACE.join(factors))


class Parser:
    """By recursive descent; `self.next` is the token ahead, None at the end."""

    def __init__(self, source):
        self.source = source
        self.in_bars = False
        self.depth = 0  # of brackets, subscripts and exponents
        self.tokens = TOKEN.finditer(source.strip())
        self.next = next(self.tokens, None)

    def sees(self, *tokens):
        return self.next is not None and self.next["token"] in tokens

    def touches(self, token):
        """Whether it follows without a space, as in a call or before a subscript."""
        return self.sees(token) and not self.next["space"]

    def take(self, *expected):
        if self.next is None or (expected and not self.sees(*expected)):
            raise ValueError(f"formula {self.source!r}: {expected} expected, not {self.next}")
        taken, self.next = self.next, next(self.tokens, None)
        return taken

    @contextmanager
    def deeper(self):
        self.depth += 1
        yield
        self.depth -= 1

    def all(self):
        markup = self.sentence()
        if self.next is not None:
            raise ValueError(f"formula {self.source!r}: what does {self.next} close?")
        return markup

    def sentence(self):
        """(words | relation | sum)*, up to a closing bracket."""
        parts = []
        while self.next is not None and not self.sees(")", "]", "}"):
            if self.in_bars and self.sees("|"):
                break
            if self.is_prose():
                words = [self.take()["token"]]
                while self.is_prose():
                    words.append(self.take()["token"])
                before, after = "&nbsp;" if parts else "", "&nbsp;" if self.next else ""
                parts.append(f"<mtext>{before}{escape(' '.join(words))}{after}</mtext>")
            elif self.sees(*RELATIONS):
                parts.append(sign(RELATIONS[self.take()["token"]]))
            else:
                parts.append(self.sum())
        return row(*parts)

    def is_prose(self):
        word = self.next and self.next["word"]
        return bool(word) and len(word) > 1 and word not in NAMES

    def sum(self):
        """[-] product ((+ | -) product)*"""
        parts = [sign("−")] if self.sees("-") and self.take() else []
        parts.append(self.product())
        while self.sees("+", "-"):
            parts.append(sign(self.take()["token"].replace("-", "−")))
            parts.append(self.product())
        return row(*parts)

    def product(self):
        """power (power | / power)*; derivatives in front stay beside a fraction."""
        front, factors = [], []
        while not (front or factors) or self.starts_factor():
            if self.next is None:
                raise ValueError(f"formula {self.source!r} breaks off")
            group = front if self.next["of"] and not factors else factors
            group.append(self.power())
            if self.touches("/") and self.depth:
                self.take()
                factors[-1:] = [row(factors[-1], SLASH, self.power())]
            elif self.sees("/"):
                self.take()
                below = self.product() if self.next["big"] else self.power()
                factors = [f"<mfrac>{bare(product(factors))}{bare(below)}</mfrac>"]
        return product(front + factors)

    def starts_factor(self):
        if self.next is None or self.is_prose() or (self.in_bars and self.sees("|")):
            return False
        return self.sees(*CLOSING) or bool(
            self.next["of"] or self.next["mantissa"] or self.next["big"] or self.next["word"]
        )

    def power(self):
        """factor [^ factor]"""
        base = self.factor()
        if not self.sees("^"):
            return base
        self.take()
        with self.deeper():
            return f"<msup>{base}{bare(self.factor())}</msup>"

    def factor(self):
        if self.sees(*CLOSING):
            return self.brackets()
        token = self.take()
        if token["of"]:
            by = self.subscript(identifier(token["by"]))
            above, below = row(sign("∂"), identifier(token["of"])), row(sign("∂"), by)
            return f"<mfrac>{above}{below}</mfrac>"
        if token["mantissa"]:
            return number(token["mantissa"], token["exponent"])
        if token["big"]:
            below = identifier(token["index"]) if token["index"] else within(token["range"])
            return f"<munder>{sign(BIG[token['big']])}{below}</munder>"
        if not token["word"]:
            raise ValueError(f"formula {self.source!r}: {token['token']} is no factor")
        name = identifier(token["word"])
        if token["prime"]:
            name = f"<msup>{name}{sign('′')}</msup>"
        if self.touches("("):
            return self.subscript(row(name, self.brackets()))
        if token["word"] in FUNCTIONS:
            return row(name, SPACE, self.power())
        return self.subscript(name)

    def brackets(self):
        outer, opening = self.in_bars, self.take()["token"]
        self.in_bars = opening == "|"
        with self.deeper():
            inner = self.sentence()
        self.in_bars = outer
        self.take(CLOSING[opening])
        whole = row(sign(opening), inner, sign(CLOSING[opening]))
        if opening == "(":
            whole = Bracketed(whole)
            whole.inner = inner
        return whole

    def subscript(self, markup):
        if not self.touches("["):
            return markup
        self.take()
        index = self.sentence()
        self.take("]")
        return f"<msub>{markup}{index}</msub>"


def within(text):
    """What a sum runs over."""
    return Parser(text.replace(" not in ", " ∉ ").replace(" in ", " ∈ ")).all()


def number(mantissa, exponent):
    if exponent is None:
        return f"<mn>{mantissa}</mn>"
    raised = row(sign("−") if exponent[0] == "-" else "", f"<mn>{exponent.lstrip('+-')}</mn>")
    power = f"<msup><mn>10</mn>{raised}</msup>"
    return power if mantissa == "1" else row(f"<mn>{mantissa}</mn>", sign("·"), power)


def cells(lines):
    """(row, column, text) of each; an indented line goes on below a cell of the line before."""
    above = []
    for i, line in enumerate(lines):
        found = [(match.start(), match.group()) for match in re.finditer(r"\S+(?: \S+)*", line)]
        skipped = sum(start < found[0][0] for start in above)
        above = above[:skipped] + [start for start, _ in found]
        for j, (_, text) in enumerate(found, start=skipped):
            yield i, j, text.rstrip(",;")


def grid(lines):
    """HTML of lines without an empty one between: a grid of cells."""
    placed = list(cells(lines))
    markup = []
    for i, j, text in placed:
        alone = sum(i == other for other, _, _ in placed) == 1 and j == 0
        column = "1 / -1" if alone else j + 1
        math = f"<math><mstyle displaystyle='true'>{Parser(text).all()}</mstyle></math>"
        markup.append(f"<span style='grid-column: {column}'>{math}</span>")
    columns = 1 + max(j for _, j, _ in placed)
    return f"<div class='formula' style='--columns: {columns}'>{''.join(markup)}</div>"
