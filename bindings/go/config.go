package pdroute

// #include <pdroute/pdroute.h>
import "C"

import (
	"sync/atomic"
	"unsafe"
)

// Policy chooses among servers.
type Policy uint32

const (
	PolicyDefault     Policy = C.PDR_POLICY_DEFAULT
	PolicyRoundRobin  Policy = C.PDR_POLICY_ROUND_ROBIN
	PolicyRandom      Policy = C.PDR_POLICY_RANDOM
	PolicyLeastTokens Policy = C.PDR_POLICY_LEAST_TOKENS
	PolicyPowerOfTwo  Policy = C.PDR_POLICY_POWER_OF_TWO
)

// Engine is a protocol between prefill and decode servers.
type Engine uint32

const EngineSGLang Engine = C.PDR_ENGINE_SGLANG

// Hold says whether requests wait in the router while all servers are busy.
type Hold uint32

const (
	HoldDefault Hold = C.PDR_HOLD_DEFAULT // on
	HoldOn      Hold = C.PDR_HOLD_ON
	HoldOff     Hold = C.PDR_HOLD_OFF
)

// Config is everything a router is made from. Zero means the default; pdroute.h has them, and what each field is.
type Config struct {
	size                 uint32
	Policy               Policy
	Engine               Engine
	MaxEndpoints         uint32
	MaxTargets           uint32
	MaxBookings          uint32
	MaxLeases            uint32
	MaxHeld              uint32
	IndexEntries         uint64
	BlockBytes           uint32
	MaxBlocks            uint32
	MaxBody              uint64
	MaxDepth             uint32
	MaxBatch             uint32
	Seed                 uint64
	BootstrapPort        uint32
	LogEntries           uint32
	PrefillBaseUs        uint32
	PrefillNsPerToken    uint32
	PrefillFsPerToken2   uint32
	DecodeUsPerRequest   uint32
	DecodePsPerToken     uint32
	KVBytesPerToken      uint32
	TransferLatencyUs    uint32
	TransferMbpsHost     uint32
	TransferMbpsRack     uint32
	TransferMbpsZone     uint32
	TransferMbpsFar      uint32
	MilliTokensPerByte   uint32
	Hold                 Hold
	HoldWindowTokens     uint32
	HoldMaxWaitMs        uint32
	HoldAgeingMs         uint32
	LeaseTTLMs           uint32
	MetricsStaleMs       uint32
	RetryMax             uint32
	BreakerFailures      uint32
	BreakerOpenMs        uint32
	FirstByteTimeoutMs   uint32
	TotalTimeoutMs       uint32
	_                    uint32
	RecordBytes          uint64
	FirstByteLeastMs     uint32
	IdleTimeoutMs        uint32
	IdleLeastMs          uint32
	RetryBudgetPermille  uint32
	BreakerErrorPermille uint32
	_                    uint32
	tenantHeader         [64]byte // TenantHeader, SetTenantHeader
}

// TenantHeader is the name of the request header that says who pays, "" if none does.
func (c *Config) TenantHeader() string { return text(c.tenantHeader[:]) }

// SetTenantHeader sets it; Resolve checks that it can be one.
func (c *Config) SetTenantHeader(name string) error {
	return putText("tenant_header", c.tenantHeader[:], name)
}

// TenantHash is Request.Tenant for the value of a header; 0 if that header is not TenantHeader.
func (c *Config) TenantHash(name, value string) uint64 {
	if c.tenantHeader[0] == 0 {
		return 0
	}
	return uint64(C.pdr_tenant_hash((*C.pdr_config)(unsafe.Pointer(c)), textOf(name), C.size_t(len(name)), textOf(value), C.size_t(len(value))))
}

func (c *Config) c() *C.pdr_config {
	if c == nil {
		return nil
	}
	c.size = uint32(unsafe.Sizeof(*c))
	return (*C.pdr_config)(unsafe.Pointer(c))
}

// ParseConfig reads a configuration from JSON: the document of docs/api.md, whose members "endpoints" and "pool" are
// left for Router.Apply.
func ParseConfig(json []byte) (*Config, error) {
	c := new(Config)
	s := newScratch()
	if err := s.done(C.pdr_config_from_json(bytesOf(json), C.size_t(len(json)), c.c(), &s.err)); err != nil {
		return nil, err
	}
	return c, nil
}

// Resolve replaces every zero by its default and checks ranges.
func (c *Config) Resolve() error {
	s := newScratch()
	return s.done(C.pdr_config_resolve(c.c(), &s.err))
}

// BlockSize is the number of bytes that a router of this configuration needs, 0 if the configuration is bad.
func (c *Config) BlockSize() uint64 { return uint64(C.pdr_router_size(c.c())) }

// Limits are what a scan of a body keeps to. Zero means the default.
type Limits struct {
	size       uint32
	BlockBytes uint32
	MaxBlocks  uint32
	MaxDepth   uint32
	MaxBatch   uint32
	_          uint32
	MaxBody    uint64
}

// Limits are those of a router of this configuration.
func (c *Config) Limits() *Limits {
	return &Limits{BlockBytes: c.BlockBytes, MaxBlocks: c.MaxBlocks, MaxDepth: c.MaxDepth, MaxBatch: c.MaxBatch, MaxBody: c.MaxBody}
}

func (l *Limits) c() *C.pdr_limits {
	if l == nil {
		return nil
	}
	atomic.StoreUint32(&l.size, uint32(unsafe.Sizeof(*l))) // requests share one
	return (*C.pdr_limits)(unsafe.Pointer(l))
}
