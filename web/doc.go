// Package web is how the inner roles speak HTTP: errors become answers and
// answers errors again, every request has an id and at most one log line, and
// every role tells its health in the same words.
//
// A handler is a function that returns an error; [Handler] makes an
// http.Handler of it. An error that may mean something to the caller is a
// [cmg.Refusal] or wraps one of the kinds in package cmg; [Answer] turns it
// into a status, a code in the header CMG-Refusal and one short sentence, and
// keeps its inner causes for the log. At the other end [ReadAnswer] makes the
// same refusal of it. [Health] serves /livez, /readyz and /status. [Serve]
// runs a server until its context ends, and then drains it.
package web
