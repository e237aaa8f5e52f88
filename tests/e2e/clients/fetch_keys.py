"""Fetches URLs by pushd's own fetch, or asks whom a token stands for; prints what came of it and what is logged.

Arguments: ``fetch URL...``, or ``identify INI TOKEN``.
"""

import json
import sys
import time

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import react
from twisted.logger import formatEvent, globalLogBeginner

from pushd.auth.tokens.authenticator import Tokens
from pushd.auth.tokens.fetch import HttpsFetch
from pushd.config.loader import parse
from pushd.errors import Refused


async def fetch_each(reactor, *urls):
    fetch = HttpsFetch(reactor, timeout_s=2)
    for url in urls:
        try:
            say(length=len(await fetch(url)))
        except Refused as error:
            say(why=error.detail, status=error.status)


async def identify(reactor, ini, token):
    keys = parse(ini, "the test").keys
    fetch = HttpsFetch(reactor, timeout_s=2)
    tokens = Tokens(keys, leeway_s=0, now=time.time, seconds=time.monotonic, fetch=fetch)
    try:
        identity = tokens.identify(token)
        identity = await identity if isinstance(identity, Deferred) else identity
        say(user=identity.user)
    except Refused as error:
        say(why=error.detail, status=error.status)


def log(event):
    say(logged=formatEvent(event))


def say(**members):
    print(json.dumps(members), flush=True)


def main(reactor, what, *arguments):
    work = {"fetch": fetch_each, "identify": identify}[what]
    return ensureDeferred(work(reactor, *arguments))


globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False)
react(main, sys.argv[1:])
