package pdroute

// #include <pdroute/pdroute.h>
import "C"

import (
	"errors"
	"unsafe"
)

// Role is what a server does.
type Role uint32

const (
	RolePrefill Role = C.PDR_ROLE_PREFILL
	RoleDecode  Role = C.PDR_ROLE_DECODE
	RoleBoth    Role = C.PDR_ROLE_BOTH
)

func (r Role) String() string {
	switch r {
	case RolePrefill:
		return "prefill"
	case RoleDecode:
		return "decode"
	case RoleBoth:
		return "both"
	}
	return "unknown"
}

// EndpointFlags are properties of a server.
type EndpointFlags uint32

const (
	EndpointTLS               EndpointFlags = C.PDR_ENDPOINT_TLS                 // https
	EndpointNullBootstrapPort EndpointFlags = C.PDR_ENDPOINT_NULL_BOOTSTRAP_PORT // send bootstrap_port: null
	EndpointAlone             EndpointFlags = C.PDR_ENDPOINT_ALONE               // a decode server that may also do a request alone
	EndpointToldPort          EndpointFlags = C.PDR_ENDPOINT_TOLD_PORT           // set by the library: BootstrapPort is what the server said
	EndpointToldDP            EndpointFlags = C.PDR_ENDPOINT_TOLD_DP             // set by the library: DPSize is what the server said
	EndpointToldPrefill       EndpointFlags = C.PDR_ENDPOINT_TOLD_PREFILL        // set by the library: the server says that it is a prefill server
	EndpointToldDecode        EndpointFlags = C.PDR_ENDPOINT_TOLD_DECODE         // set by the library: … a decode server; both bits: both
)

// State of a server.
type State uint32

const (
	StateReady    State = C.PDR_STATE_READY
	StateDraining State = C.PDR_STATE_DRAINING
	StateDown     State = C.PDR_STATE_DOWN // health or breaker
	StateRemoved  State = C.PDR_STATE_REMOVED
)

func (s State) String() string {
	switch s {
	case StateReady:
		return "ready"
	case StateDraining:
		return "draining"
	case StateDown:
		return "down"
	case StateRemoved:
		return "removed"
	}
	return "unknown"
}

// None is "no endpoint", "no rank".
const None uint32 = C.PDR_NONE

// Endpoint is one server. Name is the key (a pod's name); empty: "host:port".
type Endpoint struct {
	Role          Role
	Flags         EndpointFlags
	Port          uint32 // of its HTTP API, 1..65535
	BootstrapPort uint32 // prefill: of its bootstrap server; 0: the pool's
	DPSize        uint32 // data parallel ranks, each a target of its own; 0 and 1: none
	MaxRunning    uint32 // requests at once; 0: unknown
	KVCapacity    uint64 // tokens per rank; 0: unknown, learnt from reports
	Name          string
	Host          string // name or address; IPv6 without brackets
	BootstrapHost string // where decode finds this prefill; empty: Host
	TopologyHost  string // machine, rack, zone: any text, equal means same; empty: unknown
	TopologyRack  string
	TopologyZone  string
	Labels        string // "key=value" lines, kept for the caller
}

// cEndpoint is the endpoint as C lays it out.
type cEndpoint struct {
	size          uint32
	Role          Role
	Flags         EndpointFlags
	Port          uint32
	BootstrapPort uint32
	DPSize        uint32
	MaxRunning    uint32
	_             uint32
	KVCapacity    uint64
	Name          [128]byte
	Host          [256]byte
	BootstrapHost [256]byte
	TopologyHost  [64]byte
	TopologyRack  [64]byte
	TopologyZone  [64]byte
	Labels        [512]byte
}

func (e *cEndpoint) c() *C.pdr_endpoint {
	e.size = uint32(unsafe.Sizeof(*e))
	return (*C.pdr_endpoint)(unsafe.Pointer(e))
}

func (e *Endpoint) layOut() (*cEndpoint, error) {
	c := &cEndpoint{Role: e.Role, Flags: e.Flags, Port: e.Port, BootstrapPort: e.BootstrapPort, DPSize: e.DPSize, MaxRunning: e.MaxRunning,
		KVCapacity: e.KVCapacity}
	return c, errors.Join(
		putText("name", c.Name[:], e.Name), putText("host", c.Host[:], e.Host), putText("bootstrap_host", c.BootstrapHost[:], e.BootstrapHost),
		putText("topology_host", c.TopologyHost[:], e.TopologyHost), putText("topology_rack", c.TopologyRack[:], e.TopologyRack),
		putText("topology_zone", c.TopologyZone[:], e.TopologyZone), putText("labels", c.Labels[:], e.Labels))
}

// PutEndpoint adds a server, or updates the one of that name, and gives its id.
func (r *Router) PutEndpoint(e *Endpoint, now uint64) (uint32, error) {
	c, err := e.layOut()
	if err != nil {
		return None, err
	}
	s := newScratch()
	code := C.pdr_endpoint_put(r.c(), c.c(), C.uint64_t(now), &s.id, &s.err)
	id := uint32(s.id)
	return id, s.done(code)
}

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// DrainEndpoint lets no new requests go to a server; on false takes it back.
func (r *Router) DrainEndpoint(id uint32, on bool) error {
	s := newScratch()
	return s.done(C.pdr_endpoint_drain(r.c(), C.uint32_t(id), flag(on), &s.err))
}

// RemoveEndpoint takes a server out at once.
func (r *Router) RemoveEndpoint(id uint32) error {
	s := newScratch()
	return s.done(C.pdr_endpoint_remove(r.c(), C.uint32_t(id), &s.err))
}

// SetHealth says what a prober sees: servers that are down get no requests.
func (r *Router) SetHealth(id uint32, up bool, now uint64) error {
	s := newScratch()
	return s.done(C.pdr_endpoint_health(r.c(), C.uint32_t(id), flag(up), C.uint64_t(now), &s.err))
}

// FindEndpoint gives the id of a name.
func (r *Router) FindEndpoint(name string) (uint32, error) {
	n, err := cString("name", name)
	if err != nil {
		return None, err
	}
	defer freeString(n)
	s := newScratch()
	defer s.free()
	if code := C.pdr_endpoint_find(r.c(), n, &s.id); code != 0 {
		return None, Code(code)
	}
	return uint32(s.id), nil
}

// Endpoint describes a server.
func (r *Router) Endpoint(id uint32) (*Endpoint, State, error) {
	c := new(cEndpoint)
	s := newScratch()
	defer s.free()
	if code := C.pdr_endpoint_get(r.c(), C.uint32_t(id), c.c(), &s.id); code != 0 {
		return nil, 0, Code(code)
	}
	return &Endpoint{Role: c.Role, Flags: c.Flags, Port: c.Port, BootstrapPort: c.BootstrapPort, DPSize: c.DPSize, MaxRunning: c.MaxRunning,
		KVCapacity: c.KVCapacity, Name: text(c.Name[:]), Host: text(c.Host[:]), BootstrapHost: text(c.BootstrapHost[:]),
		TopologyHost: text(c.TopologyHost[:]), TopologyRack: text(c.TopologyRack[:]), TopologyZone: text(c.TopologyZone[:]),
		Labels: text(c.Labels[:])}, State(s.id), nil
}

// Endpoints are the ids of all servers in ascending order.
func (r *Router) Endpoints() []uint32 {
	var ids []uint32
	var at struct{ cursor, id C.uint32_t }
	for C.pdr_endpoint_next(r.c(), &at.cursor, &at.id) == 0 {
		ids = append(ids, uint32(at.id))
	}
	return ids
}

// TargetStatus is what the router knows about one target (a server's rank).
type TargetStatus struct {
	size               uint32
	Endpoint           uint32
	Rank               uint32
	Role               Role
	State              State
	Failures           uint32 // in a row
	SpeedPermille      uint32 // learnt: 1000 is as the prior says, 500 half as fast
	ReportAgeMs        uint32 // None if there never was one
	PrefillRequests    uint64 // in flight by our booking: in prefill
	PrefillTokens      uint64 // uncached tokens of those
	PrefillWaitUs      uint64 // work ahead of a new request
	DecodeRequests     uint64 // decoding or promised
	DecodeTokens       uint64 // their context tokens
	PrefixBlocks       uint64 // in the index
	PrefixCapacity     uint64
	ReportedRunning    uint64 // last report of the engine
	ReportedWaiting    uint64
	ReportedUsedTokens uint64
	KVCapacity         uint64 // tokens
	RequestsTotal      uint64 // legs sent
	FailuresTotal      uint64
	CachedTokensTotal  uint64 // as engines reported
	PromptTokensTotal  uint64
}

// Target tells about one rank of a server (0 without data parallelism).
func (r *Router) Target(id, rank uint32, now uint64) (*TargetStatus, error) {
	t := &TargetStatus{size: uint32(unsafe.Sizeof(TargetStatus{}))}
	if err := failure(C.pdr_target_get(r.c(), C.uint32_t(id), C.uint32_t(rank), C.uint64_t(now), (*C.pdr_target_status)(unsafe.Pointer(t)))); err != nil {
		return nil, err
	}
	return t, nil
}

// ApplyFlags change what Apply does.
type ApplyFlags uint32

// ApplyPrune removes servers that the document does not name.
const ApplyPrune ApplyFlags = C.PDR_APPLY_PRUNE

// ApplyReport counts what Apply did.
type ApplyReport struct {
	Added, Updated, Removed, Unchanged, Skipped int
	Warnings                                    int      // all
	Warning                                     []string // the first eight
}

type cApplyReport struct {
	size                                                  uint32
	Added, Updated, Removed, Unchanged, Skipped, Warnings uint32
	_                                                     uint32
	Warning                                               [8][160]byte
}

// Apply brings the servers in line with a JSON document: {"endpoints":[…],"pool":{…}} or Kubernetes objects. Either the
// whole document is applied or nothing.
func (r *Router) Apply(json []byte, flags ApplyFlags, now uint64) (*ApplyReport, error) {
	c := &cApplyReport{size: uint32(unsafe.Sizeof(cApplyReport{}))}
	s := newScratch()
	err := s.done(C.pdr_apply_json(r.c(), bytesOf(json), C.size_t(len(json)), C.uint32_t(flags), C.uint64_t(now),
		(*C.pdr_apply_report)(unsafe.Pointer(c)), &s.err))
	if err != nil {
		return nil, err
	}
	report := &ApplyReport{Added: int(c.Added), Updated: int(c.Updated), Removed: int(c.Removed), Unchanged: int(c.Unchanged),
		Skipped: int(c.Skipped), Warnings: int(c.Warnings)}
	for i := 0; i < len(c.Warning) && i < report.Warnings; i++ {
		report.Warning = append(report.Warning, text(c.Warning[i][:]))
	}
	return report, nil
}

// ReportKind says what an engine's answer is.
type ReportKind uint32

const (
	ReportPrometheus ReportKind = C.PDR_REPORT_PROMETHEUS  // GET /metrics
	ReportLoads      ReportKind = C.PDR_REPORT_LOADS       // GET /v1/loads of SGLang
	ReportServerInfo ReportKind = C.PDR_REPORT_SERVER_INFO // GET /server_info of SGLang
)

// PutReport takes one answer of a server, as it came. It gives the number of values that could not be read, and a note
// for the operator if the server plays another role than it was put for.
func (r *Router) PutReport(id uint32, kind ReportKind, answer []byte, now uint64) (ignored int, note string, err error) {
	s := newScratch()
	s.id = 0
	code := C.pdr_report_put(r.c(), C.uint32_t(id), C.uint32_t(kind), bytesOf(answer), C.size_t(len(answer)), C.uint64_t(now), &s.id, &s.err)
	ignored = int(s.id)
	if code == 0 {
		note = C.GoString(&s.err.message[0])
	}
	return ignored, note, s.done(code)
}

// LoadFields say which fields of a Load are set.
type LoadFields uint32

const (
	LoadRunning          LoadFields = C.PDR_LOAD_RUNNING
	LoadWaiting          LoadFields = C.PDR_LOAD_WAITING
	LoadKVUsed           LoadFields = C.PDR_LOAD_KV_USED
	LoadKVCapacity       LoadFields = C.PDR_LOAD_KV_CAPACITY
	LoadUsage            LoadFields = C.PDR_LOAD_USAGE
	LoadPrefillBootstrap LoadFields = C.PDR_LOAD_PREFILL_BOOTSTRAP
	LoadPrefillInflight  LoadFields = C.PDR_LOAD_PREFILL_INFLIGHT
	LoadDecodePrealloc   LoadFields = C.PDR_LOAD_DECODE_PREALLOC
	LoadDecodeTransfer   LoadFields = C.PDR_LOAD_DECODE_TRANSFER
	LoadWaitingTokens    LoadFields = C.PDR_LOAD_WAITING_TOKENS
	LoadMaxRunning       LoadFields = C.PDR_LOAD_MAX_RUNNING
	LoadRetracted        LoadFields = C.PDR_LOAD_RETRACTED
	LoadPendingUsage     LoadFields = C.PDR_LOAD_PENDING_USAGE
	LoadPrefillSpeed     LoadFields = C.PDR_LOAD_PREFILL_SPEED
)

// Load is one target's load as its engine reports it; pdroute.h has the units.
type Load struct {
	size                 uint32
	Have                 LoadFields
	Running              uint64
	Waiting              uint64
	KVUsed               uint64
	KVCapacity           uint64
	UsagePermille        uint32
	PendingUsagePermille uint32
	PrefillBootstrap     uint32
	PrefillInflight      uint32
	DecodePrealloc       uint32
	DecodeTransfer       uint32
	Retracted            uint32
	MaxRunning           uint32
	WaitingTokens        uint64
	PrefillUncachedTotal uint64
	PrefillBusyUsTotal   uint64
}

// PutLoad is for callers that read loads themselves.
func (r *Router) PutLoad(id, rank uint32, load *Load, now uint64) error {
	load.size = uint32(unsafe.Sizeof(*load))
	s := newScratch()
	return s.done(C.pdr_load_put(r.c(), C.uint32_t(id), C.uint32_t(rank), (*C.pdr_load)(unsafe.Pointer(load)), C.uint64_t(now), &s.err))
}
