"""Writes vectors.json: what Python's `re.compile` says of expressions, known corners first, then some that are drawn from a seed.

    python3.11 vectors.py [HOW MANY ARE DRAWN] >vectors.json

Left out is what versions of Python differ in: the flag `t`, and numbers of groups that are not plain digits.
"""

import json
import random
import re
import sys
import warnings

CORNERS = r"""
0x[0-9a-fA-F]{40} ^0xdeadbeef$ .* https?://[a-z]+\.example\.org/?
* + ? {1} {} { a{ a{} a{,} a{,3} a{3,} a{2,1} a{4294967294} a{4294967295} a{1 a{1,2 a** a*+ a*? a++ a+++ a?? a??? a{2}{3} a{2}* (?:a*)* (a*)*
^* $* \b+ \A? (?:^)* (?:)* ()* (?=a)* (?!)+ (?#c)* a(?#c)* |* a|* (*) (?:*)
( ) () (?) (?: (?:) (?:a a) (a (a)) ((a) [ ] [] [^] []] [^]] []-a] [a-] [-a] [a-z [z-a] [a-\d] [\d-a] [\d-] [a\]] [\] [[] [\b] [\B] [\A] [\8] [\777] [\377] [\08] [^^] [a--] [--a] [+--]
\ \\ a\ \8 \1 (a)\1 (a\1) (a)\2 (a)\10 \01 \0 \08 \777 \400 \377 \18 \q \Q \z \Z \N \N{ \N{} \x \x1 \x1g \xff \u12 \u1234 \U0010ffff \U00110000 \U1234 \ud800 [\ud800-\udfff] [\udfff-\ud800]
(?P<a>b) (?P<a>b)(?P<a>c) (?P<1>b) (?P<>b) (?P<a (?P<a> (?P=a) (?P<a>b)(?P=a) (?P<a>b(?P=a)) (?P>a) (?P (?Pa) (?P<é>b) (?P<a-b>c) (?P<_>c) (?P<a\>>c) (?P<a>b)(?P=a-)
(?(1)a|b) (a)?(?(1)b|c) (a)?(?(1)b|c|d) (?(1)b)(a) (?(2)b)(a) (?(0)b)(a) (?(a)b) (?P<a>x)?(?(a)b) (?(-1)b)(a) (?(99999999999)a) (?(1)a (?(1 (?() (?()a) (a(?(1)b))
(?i)a a(?i) (?i)(?s)a (?i:a) (?-i:a) (?i-s:a) (?i-i:a) (?-:a) (?i-:a) (?ix (?i- (?- (?i-a:b) (?a)b (?u)b (?au)b (?a)(?u)b (?L)b (?L:b) (?z)b (?i|b) (?-i)b (?a-i:b) (?a:b) ((?i)a) |(?i)a (?i)|(?i)a (?ia)a
(?x)a#) (?x:a#)) (?x)(?-x:a#) (?#) (?#\)) (?#a (?# (?<a) (?< (?<=a) (?<!a) (?<=a*) (?<=a|bc) (?<=a|b) (?<=a{3}) (?<=a{2,3}) (?<=(a)b) (?<=(a)\1) (a)(?<=\1) (a*)(?<=\1) (a)?(?<=(?(1)b|c)) (?<=(a)(?(1)b|c)) (?<=(?=a*)b) (?<!) (?<=) (?<=a{2147483647}) (?<=a{2147483648}) (?<=(?:a{65536}){65536}) (?=a (?!a (?=) (?!) (?>a) (?>a*)b (?<=(?>a*)) (?&a) (?'a'b) (?R) (?+1)
""".split()
SPACED = ["", " ", "(?x) a # )\n b", "(?x: a # )\n )", "a {2}", "(?x)a {2}", "(?x)a* *", "(?x)(? :a)", "(?x)|#(", "(?x)[ #]", "a|b", "[ -~]*", "(?x)#\\\n(", "(?P<a b>c)", "a\n", "\\\n", "(?#\n)", "\u00e9+", "[\u00e9-\u00ea]", "\\\u00e9", "(?P<\u00e9\u00ea>x)(?P=\u00e9\u00ea)"]
PIECES = r"a b 0 1 2 9 é \ \\ \1 \2 \d \b \A \0 \x41 \u0041 [ ] ^ $ . | ( ) (?: (?= (?! (?<= (?<! (?> (?P<a> (?P=a) (?(1) (?(a) (?# (?i) (?x) (?i: (?-x: (?x: (?a) (?u) * + ? {2} {2,} {,2} {1,2} { } , - # < > : [a-z] [^a] \Z \w".split() + [" ", "\n"]


def compiles(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, OverflowError, ValueError, RuntimeError):
        return False
    return True


def drawn(dice: random.Random) -> str:
    text = ""
    for _ in range(dice.randint(1, 9)):
        piece = dice.choice(PIECES)
        # Mostly closed, or next to nothing would be an expression.
        if piece.startswith("(") and dice.random() < 0.8 and not piece.endswith(")"):
            piece += "".join(dice.choice(PIECES) for _ in range(dice.randint(0, 3))) + ")"
        text += piece
    return text


def main(count: int) -> None:
    warnings.simplefilter("ignore")
    dice = random.Random(2026)
    texts = CORNERS + SPACED + [drawn(dice) for _ in range(count)]
    rows = {text: compiles(text) for text in texts if len(text) <= 256}
    print("[\n" + ",\n".join(json.dumps([text, good]) for text, good in rows.items()) + "\n]")


main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
