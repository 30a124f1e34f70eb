package content

// SetFree makes d believe that so many bytes are free on every disk.
func (d *Downloader) SetFree(bytes int64) {
	d.free = func(string) (int64, bool) { return bytes, true }
}

// ForgetFree makes d not know how much is free.
func (d *Downloader) ForgetFree() {
	d.free = func(string) (int64, bool) { return 0, false }
}
