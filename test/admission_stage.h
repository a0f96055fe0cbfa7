static void admission_run(void)
{
}
