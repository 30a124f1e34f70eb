package ccm

import (
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// What a report holds: ReportContent.
const (
	ContentStateMessages = "State Message Data"
	ContentInventory     = "Inventory Data"
)

// wmiTime is how reports write a time (PROTOCOL 0).
const wmiTime = "20060102150405.000000+000"

// An InventoryAction says which inventory a report is (PROTOCOL 6.6).
type InventoryAction struct {
	ID          string // {00000000-0000-0000-0000-0000000000nn}
	Description string
	Updated     time.Time // last change of what is collected; zero where it cannot be read
}

// ActionDiscovery is the heartbeat discovery record's action.
func ActionDiscovery(updated time.Time) InventoryAction {
	return InventoryAction{ID: "{00000000-0000-0000-0000-000000000003}", Description: "Discovery", Updated: updated}
}

// A Report is what a device tells about itself: state messages (PROTOCOL 6.5)
// or an inventory, of which the discovery record is one (PROTOCOL 6.6).
type Report struct {
	Content       string       // ContentStateMessages or ContentInventory
	Type          string       // Full, Delta or Resync
	Date          time.Time    // zero where it cannot be read
	Device        cmg.DeviceID // as the report says; who sent it is told by the message around it
	NetBIOSName   string
	ClientVersion string
	Action        *InventoryAction // inventories only

	States    []StateMessage     // of state messages
	Instances []ReportedInstance // of inventories
}

// Kind is what cmg.Report keeps as the kind: the inventory's description, else
// the content.
func (r Report) Kind() string {
	if r.Action != nil && r.Action.Description != "" {
		return r.Action.Description
	}
	return r.Content
}

// A ReportedInstance is one object of an inventory.
type ReportedInstance struct {
	Instance
	Content     string // "New"
	Namespace   string
	ParentClass string
}

// XML writes the report.
func (r Report) XML() string {
	root := r.header()
	body := el("ReportBody")
	for _, s := range r.States {
		body.add(s.element())
	}
	for _, i := range r.Instances {
		class := el(i.Class)
		for _, p := range i.Properties {
			class.addText(p.Name, p.Value)
		}
		body.add(el("Instance", "Content", i.Content, "Namespace", i.Namespace, "Class", i.Class, "ParentClass", i.ParentClass).add(class))
	}
	return root.add(body).String()
}

// Head writes the report with an empty body: the first of the two documents
// a discovery record travels as (PROTOCOL 3.3).
func (r Report) Head() string { return r.header().add(el("ReportBody")).String() }

func (r Report) header() *element {
	machine := el("Machine").addText("ClientInstalled", "1").addText("ClientType", "1").addText("ClientID", string(r.Device)).
		addText("ClientVersion", r.ClientVersion).addText("NetBIOSName", r.NetBIOSName).addText("CodePage", "65001").
		addText("SystemDefaultLCID", "1033").addText("Priority", "0")
	format := "1.0"
	if r.Action != nil {
		format = "1.1"
	}
	header := el("ReportHeader").add(el("Identification").add(machine),
		el("ReportDetails").addText("ReportContent", r.Content).addText("ReportType", r.Type).
			addText("Date", r.Date.UTC().Format(wmiTime)).addText("Version", "1.0").addText("Format", format))
	if r.Action != nil {
		header.add(el("InventoryAction", "ActionType", "Predefined").addText("InventoryActionID", r.Action.ID).
			addText("Description", r.Action.Description).
			addText("InventoryActionLastUpdateTime", r.Action.Updated.UTC().Format(wmiTime)))
	}
	return el("Report").add(header)
}

// ReadReport reads a report.
func ReadReport(text string) (Report, error) {
	r, err := readReport(text)
	if err != nil {
		return Report{}, fmt.Errorf("read report: %w", err)
	}
	return r, nil
}

func readReport(text string) (r Report, err error) {
	root, err := parseRoot(text, "Report")
	if err != nil {
		return r, err
	}
	header, err := root.one("ReportHeader")
	if err != nil {
		return r, err
	}
	body, err := root.one("ReportBody")
	if err != nil {
		return r, err
	}
	if err := r.readHeader(header); err != nil {
		return r, err
	}
	for _, e := range body.all("StateMessage") {
		r.States = append(r.States, readStateMessage(e))
	}
	for _, e := range body.all("Instance") {
		i := ReportedInstance{Instance: Instance{Class: e.attr("Class")}, Content: e.attr("Content"),
			Namespace: e.attr("Namespace"), ParentClass: e.attr("ParentClass")}
		for _, p := range e.find(i.Class).children {
			i.Properties = append(i.Properties, Property{Name: p.name, Value: p.value()})
		}
		r.Instances = append(r.Instances, i)
	}
	return r, nil
}

func (r *Report) readHeader(header *element) (err error) {
	details := header.find("ReportDetails")
	if r.Content, err = short("report content", details.find("ReportContent").value(), 64); err != nil {
		return err
	}
	if r.Content == "" {
		return fmt.Errorf("no ReportContent: %w", cmg.ErrInvalid)
	}
	r.Type = details.find("ReportType").value()
	r.Date = readWMITime(details.find("Date").value())
	machine := header.find("Identification", "Machine")
	if id := machine.find("ClientID").value(); id != "" {
		if r.Device, err = cmg.ParseDeviceID(id); err != nil {
			return err
		}
	}
	if r.NetBIOSName, err = short("NetBIOS name", machine.find("NetBIOSName").value(), 256); err != nil {
		return err
	}
	if r.ClientVersion, err = short("client version", machine.find("ClientVersion").value(), 64); err != nil {
		return err
	}
	for _, a := range header.all("InventoryAction") {
		r.Action = &InventoryAction{ID: a.find("InventoryActionID").value(), Updated: readWMITime(a.find("InventoryActionLastUpdateTime").value())}
		if r.Action.Description, err = short("inventory action", a.find("Description").value(), 64); err != nil {
			return err
		}
	}
	return nil
}

// readWMITime reads yyyymmddhhmmss and ignores the fraction and the offset in
// minutes behind it, which the field writes as +000.
func readWMITime(v string) time.Time {
	day, _, _ := strings.Cut(v, ".")
	t, _ := time.Parse("20060102150405", day)
	return t
}
