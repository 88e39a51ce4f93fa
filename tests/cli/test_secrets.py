"""Passwords of URLs are hidden anywhere in a text, in linear time."""

from __future__ import annotations

import time

import pytest

from blazen_trio._cli.output import hide_passwords


@pytest.mark.parametrize(
    ("url", "text", "hidden"),
    [
        (None, "at postgresql://ann:se@sa/me@h/d.", "at postgresql://ann:***@h/d."),
        (None, "'mysql://h/d?password=sesame&x=1'", "'mysql://h/d?password=***&x=1'"),
        (None, "http://h:80/x and ann@h", "http://h:80/x and ann@h"),
        ("postgresql://ann:sesame@h/d", "password 'sesame' is wrong", "password '***' is wrong"),
        ("postgresql://ann:ses%40me@h/d", "ses@me, ses%40me", "***, ***"),
        ("postgresql://ann:ses@me@h/d", "no host 'me@h'", "no host '***@h'"),
        ("postgresql://ann:post@h/d", "postgres post", "postgres ***"),
        ("sqlite:///runs.db", "sqlite:///runs.db", "sqlite:///runs.db"),
        ("postgresql://ann@h/d", "ann at h", "ann at h"),
    ],
)
def test_the_password_of_a_url_is_hidden_in_text(url, text, hidden):
    assert hide_passwords(text, url) == hidden


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (
            "at pg://ann:it's-sesame@h/d and pg://bob:sesame@h",
            "at pg://ann:***@h/d and pg://bob:***@h",
        ),
        ("at 'pg://ann:\"sesame\"@h'", "at 'pg://ann:***@h'"),
        ("at pg://ann:open sesame now@h/d", "at pg://ann:***@h/d"),
        ("at pg://ann:80/sesame@h, pg://ann:12@h", "at pg://ann:***@h, pg://ann:***@h"),
        ("at pg://ann@corp:sesame@h/d", "at pg://ann:***@h/d".replace("ann", "ann@corp")),
        ("at my://h/d?x=1&passwd=o'sesame&y=2", "at my://h/d?x=1&passwd=***&y=2"),
        ("at host=h password='open \\' sesame' user=a", "at host=h password=*** user=a"),
        ("connect(password='sesame', port=1)", "connect(password=***, port=1)"),
        # What is no password:
        ("http://[::1]:80/x of ann@h", "http://[::1]:80/x of ann@h"),
        ("redis://cache:6379 of ann@h", "redis://cache:6379 of ann@h"),
        ("http://h: refused; ask ann@h", "http://h: refused; ask ann@h"),
        ('{"url":"http://h:80/x","by":"ann@h"}', '{"url":"http://h:80/x","by":"ann@h"}'),
        ("http://h:x\nann@h", "http://h:x\nann@h"),
        ("http://h:x http://ann@h", "http://h:x http://ann@h"),
    ],
)
def test_only_passwords_are_hidden(text, hidden):
    assert hide_passwords(text) == hidden


@pytest.mark.parametrize(
    "piece",
    [
        "://a:",
        "://a:b ",
        "://a:1 ",
        "://",
        "://[1:",
        "://a@",
        "://a:b@",
        "?passw",
        "passwd=",
        "passwd='",
        "passwd='a'),",
    ],
)
@pytest.mark.parametrize("end", ["", "@", ")" * 100_000 + "x"], ids=["nothing", "at", "brackets"])
def test_hiding_passwords_takes_linear_time(piece, end):
    began = time.perf_counter()
    hide_passwords(piece * 100_000 + end, "pg://ann:sesame@h")
    assert time.perf_counter() - began < 60  # some tenths; by the square it would be many minutes
