package pdroute

import "syscall"

// dup duplicates a descriptor; the new one is not inherited by child processes.
func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n, err := syscall.Dup(fd)
	if err != nil {
		return -1, err
	}
	syscall.CloseOnExec(n)
	return n, syscall.SetNonblock(n, true)
}
