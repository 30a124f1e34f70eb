// Package bits is the BITS upload protocol (MC-BUP, PROTOCOL 8), both ends: a
// Server that keeps uploads on disk until they are whole, and a Client that
// goes on where it was cut off.
//
// # One upload
//
// Every packet is a request with the method BITS_POST to the upload's URL. Its
// kind stands in BITS-Packet-Type:
//
//	Create-Session  →  200 Ack, BITS-Session-Id, BITS-Protocol
//	Fragment        →  200 Ack, BITS-Received-Content-Range: next offset wanted
//	…
//	Close-Session   →  200 Ack: the file is whole and handed on
//
// Ping asks whether anybody is there; Cancel-Session drops what was sent. A
// Fragment names its place, "Content-Range: bytes first-last/total". Bytes
// that the server has already are skipped; one that begins past them is 416,
// and BITS-Received-Content-Range says where to go on. So a client that does
// not know how far it got sends one byte from the very end, and is told.
//
// # On disk
//
// A session is two files in the server's folder, <id>.data and <id>.json. The
// record tells how many bytes are good and holds the state of their SHA-256;
// it is written after the bytes are durable, and an answer after the record.
// Whatever kills the process, the folder tells the next one where every
// session stands. The bytes of a fragment that was cut count as well. After
// Close-Session a record without data stays for a while, so that a client
// that did not hear the answer is told again.
//
// # Refusals
//
// Beside the code, refusals carry an HRESULT in BITS-Error-Code and BITS-Error
// and in BITS-Error-Context who it was: 0x5 the server, 0x7 what takes the
// files.
//
//	400 CMGMP_Upload_Bad_Packet       0x80070057  the packet breaks a rule, or does not belong here
//	403 CMGMP_Upload_Quota            0x80070718  this device has as much under way as it may
//	408 CMGMP_Upload_Broken_Off       0           the fragment did not come whole: what came is kept
//	413 CMGMP_Upload_Fragment_Large   0           send smaller fragments
//	416 CMGMP_Upload_Gap              0           the fragment begins past what is here
//	500 CMGMP_Upload_Session_Unknown  0x8020001F  begin again with Create-Session
//	500 CMGMP_Upload_Too_Large        0x80200020  the file is larger than any may be
//	503 CMGMP_Upload_Disk_Full        0x80070070  the server's disk is full
//	503 CMGMP_Upload_Limit            0x80070718  the server has as much under way as it takes
package bits
