"""
Byte streams that a client might send: sound ones, and ones that must be refused.

Every malformed entry has the statuses that may answer it.  Each follows from RFC 9112 (sections
2.2, 3, 5, 6, 7.1) or from a stated limit; where the RFC lets a server forgive, ours does not,
because the next hop may forgive differently.
"""

H = b"Host: a\r\n"
POST = b"POST /p HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
AFTER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

# name -> (bytes, the requests they hold as (method, target, body))
SOUND: dict[str, tuple[bytes, list[tuple[str, str, bytes]]]] = {
    "empty": (b"", []),
    "get": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [("GET", "/", b"")]),
    "no-blank-after-colon": (b"GET / HTTP/1.1\r\nHost:a\r\n\r\n", [("GET", "/", b"")]),
    "host-with-port": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [("GET", "/", b"")]),
    "empty-host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", [("GET", "/", b"")]),
    "http-1.0": (b"GET /old HTTP/1.0\r\n\r\n", [("GET", "/old", b"")]),
    "minor-version-2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", [("GET", "/", b"")]),
    "absolute-form": (b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", [("GET", "http://a/x", b"")]),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [("OPTIONS", "*", b"")]),
    "empty-line-first": (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", [("GET", "/", b"")]),
    "obs-text": (b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\n\r\n", [("GET", "/", b"")]),
    "pipelined": (
        b"".join(
            (
                b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
                b"HEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
            )
        ),
        [("GET", "/1", b""), ("HEAD", "/2", b""), ("POST", "/3", b"abc"), ("GET", "/4", b"")],
    ),
    "many-fields-in-each": (
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 60 + b"\r\n") * 3,
        [("GET", "/", b"")] * 3,
    ),
    "empty-line-between": (
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        [("GET", "/1", b""), ("GET", "/2", b"")],
    ),
    "length": (POST + b"Content-Length: 5\r\n\r\nhello", [("POST", "/p", b"hello")]),
    "length-zero": (
        POST + b"Content-Length: 0\r\n\r\n" + AFTER,
        [("POST", "/p", b""), ("GET", "/smuggled", b"")],
    ),
    "length-with-leading-zeros": (
        POST + b"content-length:\t005 \r\n\r\nhello",
        [("POST", "/p", b"hello")],
    ),
    "body-like-a-request": (
        POST + b"Content-Length: %d\r\n\r\n" % len(AFTER) + AFTER,
        [("POST", "/p", AFTER)],
    ),
    "chunked": (
        CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n" + AFTER,
        [("POST", "/p", b"hello!"), ("GET", "/smuggled", b"")],
    ),
    "chunked-in-capitals": (
        POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0A\r\n0123456789\r\n000\r\n\r\n",
        [("POST", "/p", b"0123456789")],
    ),
    "chunk-extensions": (
        CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0;last\r\n\r\n',
        [("POST", "/p", b"abc")],
    ),
    "trailers": (
        CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n" + AFTER,
        [("POST", "/p", b"abc"), ("GET", "/smuggled", b"")],
    ),
    "chunk-of-crlf": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", [("POST", "/p", b"\r\n\r\n")]),
    "expect": (
        POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
        [("POST", "/p", b"hi")],
    ),
    "close": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + AFTER,
        [("GET", "/", b"")],
    ),
    "upgrade-declined": (
        b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + AFTER,
        [("GET", "/u", b""), ("GET", "/smuggled", b"")],
    ),
}

_BAD = {400}

# name -> (bytes, the statuses that may answer)
MALFORMED: dict[str, tuple[bytes, set[int]]] = {
    # the request line
    "tls-hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", _BAD),
    "nul-first": (b"\x00GET / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "space-first": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "two-empty-lines-first": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "lf-first": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "no-version": (b"GET /\r\nHost: a\r\n\r\n", _BAD),
    "method-only": (b"GET\r\n\r\n", _BAD),
    "two-spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "tab-for-space": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "space-in-target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "space-at-end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", _BAD),
    "nul-in-target": (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "raw-utf8-in-target": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "method-not-a-token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "lower-case-version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", _BAD),
    "version-of-two-digits": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", _BAD),
    "version-with-sign": (b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", _BAD),
    "version-0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", _BAD),
    "version-2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", {505}),
    "http2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {505}),
    "long-target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414}),
    "endless-target": (b"GET /" + b"a" * 9000, {414}),
    # line ends
    "bare-lf-lines": (b"GET / HTTP/1.1\nHost: a\n\n", _BAD),
    "bare-lf-in-head": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", _BAD),
    "bare-lf-at-end": (b"GET / HTTP/1.1\r\nHost: a\r\n\n", _BAD),
    "bare-cr-in-line": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", _BAD),
    "bare-cr-in-request-line": (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", _BAD),
    "cr-cr-lf": (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", _BAD),
    # header fields
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", _BAD),
    "obs-fold-by-tab": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", _BAD),
    "obs-fold-first": (b"GET / HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n", _BAD),
    "space-before-colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", _BAD),
    "tab-before-colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", _BAD),
    "no-colon": (b"GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", _BAD),
    "empty-name": (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", _BAD),
    "name-not-a-token": (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): b\r\n\r\n", _BAD),
    "name-in-utf8": (b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: b\r\n\r\n", _BAD),
    "nul-in-value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", _BAD),
    "control-in-value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x0bc\r\n\r\n", _BAD),
    "delete-in-value": (b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", _BAD),
    "no-host": (b"GET / HTTP/1.1\r\n\r\n", _BAD),
    "no-host-in-1.2": (b"GET / HTTP/1.2\r\n\r\n", _BAD),
    "two-hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", _BAD),
    "two-equal-hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", _BAD),
    "two-hosts-in-1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", _BAD),
    "host-with-path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", _BAD),
    "host-with-user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", _BAD),
    "host-with-blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", _BAD),
    "host-list": (b"GET / HTTP/1.1\r\nHost: a, b \r\n\r\n", _BAD),
    "too-many-fields": (b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n" * 100 + b"\r\n", {431}),
    "too-large-head": (b"GET / HTTP/1.1\r\n" + H + (b"X: " + b"y" * 4000 + b"\r\n") * 17, {431}),
    "too-large-field": (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"y" * 66000 + b"\r\n\r\n", {431}),
    "unknown-expectation": (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", {417}),
    "head-cut-short": (b"GET / HTTP/1.1\r\nHost: a\r\n", _BAD),
    "request-line-cut-short": (b"GET / HT", _BAD),
    # which length?
    "length-and-chunked": (
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + AFTER,
        _BAD,
    ),
    "chunked-and-length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + AFTER,
        _BAD,
    ),
    "chunked-in-1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", _BAD),
    "two-lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", _BAD),
    "two-equal-lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", _BAD),
    "length-list": (POST + b"Content-Length: 5, 5\r\n\r\nhello", _BAD),
    "length-list-differing": (POST + b"Content-Length: 5, 6\r\n\r\nhello", _BAD),
    "length-with-plus": (POST + b"Content-Length: +5\r\n\r\nhello", _BAD),
    "length-with-minus": (POST + b"Content-Length: -5\r\n\r\nhello", _BAD),
    "length-with-blank": (POST + b"Content-Length: 1 0\r\n\r\nhello", _BAD),
    "length-with-underscore": (POST + b"Content-Length: 1_0\r\n\r\nhello", _BAD),
    "length-in-hex": (POST + b"Content-Length: 0x5\r\n\r\nhello", _BAD),
    "length-empty": (POST + b"Content-Length:\r\n\r\nhello", _BAD),
    "length-not-a-number": (POST + b"Content-Length: five\r\n\r\nhello", _BAD),
    "length-in-arabic-digits": (
        POST + b"Content-Length: " + "\u0665".encode() + b"\r\n\r\nhello",
        _BAD,
    ),
    "length-beyond-63-bits": (POST + b"Content-Length: 18446744073709551621\r\n\r\nhello", _BAD),
    "length-of-5000-digits": (POST + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\n", _BAD),
    "coding-unknown": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {501}),
    "coding-not-final": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", _BAD),
    "coding-identity": (POST + b"Transfer-Encoding: identity\r\n\r\n" + AFTER, _BAD),
    "coding-twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", _BAD),
    "coding-on-two-lines": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _BAD,
    ),
    "coding-on-two-lines-differing": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
        _BAD,
    ),
    "coding-like-chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", _BAD),
    "coding-quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', _BAD),
    "coding-with-control": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", _BAD),
    "coding-with-parameter": (POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", _BAD),
    "coding-with-leading-comma": (POST + b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", _BAD),
    "coding-empty": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", _BAD),
    "coding-space-before-colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", _BAD),
    "coding-folded": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", _BAD),
    # bodies
    "length-cut-short": (POST + b"Content-Length: 5\r\n\r\nhell", _BAD),
    "chunked-cut-short": (CHUNKED + b"5\r\nhel", _BAD),
    "chunked-without-end": (CHUNKED + b"5\r\nhello\r\n", _BAD),
    "chunked-without-final-crlf": (CHUNKED + b"5\r\nhello\r\n0\r\n", _BAD),
    "chunk-size-empty": (CHUNKED + b"\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-signed": (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-negative": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-prefixed": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-with-underscore": (CHUNKED + b"1_0\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-not-hex": (CHUNKED + b"5g\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-of-17-digits": (CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-space-before": (CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-size-space-after": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-line-bare-lf": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-line-bare-cr": (CHUNKED + b"5\rhello\r\n0\r\n\r\n", _BAD),
    "chunk-extension-with-lf": (CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-extension-with-cr": (CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-extension-with-nul": (CHUNKED + b"5;a\x00\r\nhello\r\n0\r\n\r\n", _BAD),
    "chunk-extension-endless": (CHUNKED + b"5;" + b"a" * 300, _BAD),
    "chunk-too-long": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", _BAD),
    "chunk-ended-by-lf": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", _BAD),
    "chunk-ended-by-two-lfs": (CHUNKED + b"5\r\nhello\n\n0\r\n\r\n", _BAD),
    "chunk-ended-by-lf-cr": (CHUNKED + b"5\r\nhello\n\r0\r\n\r\n", _BAD),
    "chunk-ended-by-two-bytes": (CHUNKED + b"5\r\nhelloXX0\r\n\r\n", _BAD),
    "chunk-ended-by-cr-only": (CHUNKED + b"5\r\nhello\r0\r\n\r\n", _BAD),
    "trailer-folded": (CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n", _BAD),
    "trailer-without-colon": (CHUNKED + b"0\r\nX\r\n\r\n", _BAD),
    "trailer-bare-lf": (CHUNKED + b"0\r\nX: a\n\r\n", _BAD),
    "trailers-ended-by-lf": (CHUNKED + b"0\r\n\n", _BAD),
    "trailers-too-many": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n", {431}),
    "trailers-too-large-together": (
        CHUNKED + b"0\r\n" + (b"X: " + b"y" * 95 + b"\r\n") * 90 + b"\r\n",
        {431},
    ),
    "trailers-too-large": (CHUNKED + b"0\r\nX: " + b"y" * 9000, {431}),
}
