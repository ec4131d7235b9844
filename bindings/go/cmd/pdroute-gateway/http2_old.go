//go:build !go1.24

package main

import "net/http"

func unencryptedHTTP2(*http.Server) {}
