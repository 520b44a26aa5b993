package gdb

import (
	"fmt"
	"strings"
)

// flagSet is a type of the target description: bits with names.
type flagSet struct {
	id   string
	size int // in bytes
	bits []flag
}

type flag struct {
	name     string
	from, to int
}

func one(name string, at int) flag { return flag{name, at, at} }

// flagSets are the types that registers of coreRegisters and systemRegisters have.
func flagSets() []flagSet {
	return []flagSet{
		{"i386_eflags", 4, []flag{
			one("CF", 0), one("", 1), one("PF", 2), one("AF", 4), one("ZF", 6), one("SF", 7), one("TF", 8), one("IF", 9), one("DF", 10), one("OF", 11),
			{"IOPL", 12, 13}, one("NT", 14), one("RF", 16), one("VM", 17), one("AC", 18), one("VIF", 19), one("VIP", 20), one("ID", 21),
		}},
		{"i386_mxcsr", 4, []flag{
			one("IE", 0), one("DE", 1), one("ZE", 2), one("OE", 3), one("UE", 4), one("PE", 5), one("DAZ", 6), one("IM", 7), one("DM", 8), one("ZM", 9),
			one("OM", 10), one("UM", 11), one("PM", 12), {"RC", 13, 14}, one("FZ", 15),
		}},
		{"i386_cr0", 8, []flag{
			one("PE", 0), one("MP", 1), one("EM", 2), one("TS", 3), one("ET", 4), one("NE", 5), one("WP", 16), one("AM", 18), one("NW", 29), one("CD", 30), one("PG", 31),
		}},
		{"i386_cr4", 8, []flag{
			one("VME", 0), one("PVI", 1), one("TSD", 2), one("DE", 3), one("PSE", 4), one("PAE", 5), one("MCE", 6), one("PGE", 7), one("PCE", 8), one("OSFXSR", 9),
			one("OSXMMEXCPT", 10), one("UMIP", 11), one("LA57", 12), one("VMXE", 13), one("SMXE", 14), one("FSGSBASE", 16), one("PCIDE", 17), one("OSXSAVE", 18),
			one("SMEP", 20), one("SMAP", 21), one("PKE", 22),
		}},
		{"i386_efer", 8, []flag{
			one("SCE", 0), one("LME", 8), one("LMA", 10), one("NXE", 11), one("SVME", 12), one("LMSLE", 13), one("FFXSR", 14), one("TCE", 15),
		}},
	}
}

// vec128 is what an XMM register can be looked at as.
const vec128 = `<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>` +
	`<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>` +
	`<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>` +
	`<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>` + "\n"

// description is target.xml (gdb's manual, appendix G): the registers in the order of
// their numbers. A type stands in the feature that uses it first.
func description() string {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target>\n<architecture>i386:x86-64</architecture>\n")
	for _, f := range featureList() {
		fmt.Fprintf(&b, "<feature name=%q>\n", f.name)
		used := map[string]bool{}
		for _, r := range f.registers {
			used[r.kind] = true
		}
		for _, t := range flagSets() {
			if used[t.id] {
				t.describe(&b)
			}
		}
		if used["vec128"] {
			b.WriteString(vec128)
		}
		for _, r := range f.registers {
			fmt.Fprintf(&b, "<reg name=%q bitsize=\"%d\" type=%q/>\n", r.name, 8*r.size, r.kind)
		}
		b.WriteString("</feature>\n")
	}
	b.WriteString("</target>\n")
	return b.String()
}

func (t *flagSet) describe(b *strings.Builder) {
	fmt.Fprintf(b, "<flags id=%q size=\"%d\">", t.id, t.size)
	for _, f := range t.bits {
		fmt.Fprintf(b, "<field name=%q start=\"%d\" end=\"%d\"/>", f.name, f.from, f.to)
	}
	b.WriteString("</flags>\n")
}
