//go:build !race

package pdroute

const instrumented = false
