package h1

import "strings"

// Answers of servers that are refused: the client is answered 502.
var refusedAnswers = []vector{
	{name: "te and length", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", status: 502},
	{name: "length and te", in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", status: 502},
	{name: "te in 1.0", in: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 502},
	{name: "te gzip, chunked", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", status: 502},
	{name: "te twice", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", status: 502},
	{name: "te identity", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", status: 502},
	{name: "two lengths", in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", status: 502},
	{name: "two equal lengths", in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", status: 502},
	{name: "length list", in: "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n", status: 502},
	{name: "length minus", in: "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", status: 502},
	{name: "length plus", in: "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n", status: 502},
	{name: "length hex", in: "HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\n", status: 502},
	{name: "length empty", in: "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", status: 502},
	{name: "fold", in: "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "bare lf", in: "HTTP/1.1 200 OK\nContent-Length: 0\n\n", status: 502},
	{name: "bare lf in a field", in: "HTTP/1.1 200 OK\r\nA: b\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "bare cr in a field", in: "HTTP/1.1 200 OK\r\nA: b\rC: d\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "nul in a value", in: "HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "space before colon", in: "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", status: 502},
	{name: "no colon", in: "HTTP/1.1 200 OK\r\nAbc\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "control byte in the reason", in: "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status of four digits", in: "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status with a letter", in: "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "status above 599", in: "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "version 2", in: "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "not http", in: "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", status: 502},
	{name: "101 not asked for", in: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 502},
	{name: "101 in 1.0", in: "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 502},
	{name: "nine interim answers", in: strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 9) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 502},
	{name: "interim answer with te and length", in: "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", status: 502},
	{name: "many fields", in: "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: a\r\n", MaxFields+1) + "\r\n", status: 502},
	{name: "endless head", in: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", MaxHead) + "\r\n\r\n", status: 502},
}
