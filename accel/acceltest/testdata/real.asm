; Ports and MMIO from real mode, in every width, string instructions included.
%include "common.inc"
main:   mov al, 0x12
        out 0x80, al
        mov ax, 0x3456
        out 0x80, ax
        mov eax, 0x789abcde
        out 0x80, eax
        in al, 0x81
        out 0x80, al
        in ax, 0x81
        out 0x80, ax
        in eax, 0x81
        out 0x80, eax
        cld
        mov si, text
        mov cx, 5
        mov dx, 0x80
        rep outsb
        mov di, 0x6000
        mov cx, 3
        mov dx, 0x81
        rep insw
        mov si, 0x6000
        mov cx, 3
        mov dx, 0x80
        rep outsw
        mov ax, 0xd000
        mov es, ax
        mov byte [es:4], 0x5a
        mov word [es:6], 0x1234
        mov ax, [es:8]
        out 0x80, ax
        DONE
text:   db "hello"
