package optab

// Source: Intel SDM vol. 2 (0F 00, 0F 01, 0F 20-23, 0F 30-35, 0F AE, 0F C7 groups).

func systemRows() []Row {
	return join(descriptorRows(), controlRows(), msrRows())
}

func descriptorRows() []Row {
	var rows []Row
	// Into memory the selectors are 16 bits; into a register, operand size.
	for i, op := range []Op{SLDT, STR} {
		rows = append(rows, row(op, 0x0f00, Mw).digit(i), row(op, 0x0f00, Ev).digit(i).reg())
	}
	rows = append(rows,
		row(LLDT, 0x0f00, Ew).digit(2).with(Privileged), row(LTR, 0x0f00, Ew).digit(3).with(Privileged),
		row(VERR, 0x0f00, Ew).digit(4), row(VERW, 0x0f00, Ew).digit(5),
		row(LAR, 0x0f02, Gv, Ew), row(LSL, 0x0f03, Gv, Ew),
		row(MOVSEG, 0x8c, Mw, Sw), row(MOVSEG, 0x8c, Ev, Sw).reg(), row(MOVSEG, 0x8e, Sw, Ew))
	for i, op := range []Op{SGDT, SIDT, LGDT, LIDT} {
		rows = append(rows, row(op, 0x0f01, Ms).digit(i).with(Force64))
		if i >= 2 {
			rows[len(rows)-1].Flags |= Privileged
		}
	}
	return rows
}

func controlRows() []Row {
	return []Row{
		row(SMSW, 0x0f01, Mw).digit(4), row(SMSW, 0x0f01, Ev).digit(4).reg(),
		row(LMSW, 0x0f01, Ew).digit(6).with(Privileged),
		row(INVLPG, 0x0f01, Mb).digit(7).with(Privileged),
		row(SWAPGS, 0x0f01).fixed(7, 0).with(Only64 | Privileged),
		row(CLAC, 0x0f01).fixed(1, 2).pfx(PNone).with(Privileged),
		row(STAC, 0x0f01).fixed(1, 3).pfx(PNone).with(Privileged),
		row(MONITOR, 0x0f01).fixed(1, 0).with(Privileged), row(MWAIT, 0x0f01).fixed(1, 1).with(Privileged),
		row(VMCALL, 0x0f01).fixed(0, 1), row(VMMCALL, 0x0f01).fixed(3, 1),
		row(XGETBV, 0x0f01).fixed(2, 0).pfx(PNone), row(XSETBV, 0x0f01).fixed(2, 1).pfx(PNone).with(Privileged),
		row(MOVCR, 0x0f20, Ry, Cd).with(Privileged), row(MOVCR, 0x0f22, Cd, Ry).with(Privileged),
		row(MOVDR, 0x0f21, Ry, Dd).with(Privileged), row(MOVDR, 0x0f23, Dd, Ry).with(Privileged),
		row(CLI, 0xfa), row(STI, 0xfb), row(HLT, 0xf4).with(Privileged),
		row(CLTS, 0x0f06).with(Privileged), row(INVD, 0x0f08).with(Privileged), row(WBINVD, 0x0f09).with(Privileged),
		row(INVPCID, 0x0f3882, Gy, Mdq).pfx(P66).with(Privileged | Force64),
		row(SYSCALL, 0x0f05), row(SYSRET, 0x0f07).with(Privileged),
		row(SYSENTER, 0x0f34), row(SYSEXIT, 0x0f35).with(Privileged),
		row(RSM, 0x0faa),
	}
}

func msrRows() []Row {
	rows := []Row{
		row(WRMSR, 0x0f30).with(Privileged), row(RDMSR, 0x0f32).with(Privileged), row(RDPMC, 0x0f33),
	}
	for i, op := range []Op{RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE} {
		rows = append(rows, row(op, 0x0fae, Ey).digit(i).reg().pfx(PF3).with(Only64))
	}
	return rows
}
